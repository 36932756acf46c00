"""The shards of a pool as its driver knows them, and who owns which block."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any


@dataclasses.dataclass(eq=False)
class Recovery:
    """Blocks that are being brought back.

    Attributes:
        shard: Number of the shard that lost them.
        began: Time of the loss.
        replayed: Windows that are gone through again, by whoever has the most.
        awaited: How many shards have parts of them, and have not answered since.
    """

    shard: int
    began: float
    replayed: int = 0
    awaited: int = 0


@dataclasses.dataclass(eq=False)
class Member:
    """One shard process; another process in its place is another member.

    Attributes:
        slot: Number of the shard.
        actor: Its process.
        began: Time of its start.
        blocks: The blocks that it owns, in order.
        answered: Whether it has ever answered.
        lost: Whether it was given up.
        adopting: Calls that hand it blocks and have not been looked at.
        ready: The call that tells whether it has started, while it owns nothing.
        recovering: What its next answer will have brought back.
        late: Its blocks are being rebuilt and the steps go on without them; the next
            window of these blocks.
    """

    slot: int
    actor: Any
    began: float
    blocks: list[int] = dataclasses.field(default_factory=list)
    answered: bool = False
    lost: bool = False
    adopting: list[Any] = dataclasses.field(default_factory=list)
    ready: Any = None
    recovering: list[Recovery] = dataclasses.field(default_factory=list)
    late: int | None = None


Shares = list[tuple[Member, list[int]]]  # Who is asked for what.


def owners(members: Iterable[Member], indices: Iterable[int]) -> Shares:
    """Who owns which of these blocks."""
    wanted = set(indices)
    shares = [(m, [b for b in m.blocks if b in wanted]) for m in members]
    return [(member, blocks) for member, blocks in shares if blocks]


def dealt(members: Sequence[Member], items: Sequence[int]) -> Shares:
    """Items dealt out in turn."""
    count = len(members)
    shares = [(member, list(items[i::count])) for i, member in enumerate(members)]
    return [(member, owned) for member, owned in shares if owned]


def spread(members: Sequence[Member], blocks: Sequence[int]) -> Shares:
    """Blocks dealt out, each to whoever owns the fewest by then."""
    shares: dict[int, list[int]] = {member.slot: [] for member in members}
    for block in blocks:
        poorest = min(members, key=lambda m: len(m.blocks) + len(shares[m.slot]))
        shares[poorest.slot].append(block)
    return [(m, shares[m.slot]) for m in members if shares[m.slot]]


def free_slot(members: Iterable[Member]) -> int:
    """The smallest number that no shard has."""
    taken = {member.slot for member in members}
    return next(slot for slot in range(len(taken) + 1) if slot not in taken)
