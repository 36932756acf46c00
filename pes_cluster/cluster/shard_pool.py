"""Shards in processes of their own: what is lost is rebuilt to the same bits.

The pool knows who owns which block, keeps copies of all blocks and the thetas since,
and answers each loss by the same act: somebody else adopts the copy and goes through
the thetas again. Hosts that join or leave are the same act without a loss.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pes_cluster.cluster.assignment import assign
from pes_cluster.cluster.calls import START_SECONDS, Arguments, Asked, Calls, Pending
from pes_cluster.cluster.checkpoint import Part
from pes_cluster.cluster.copying import DRIVER_BYTES, Blocks, Copies, block_bytes
from pes_cluster.cluster.events import Event, Field
from pes_cluster.cluster.failure import Losses, judge
from pes_cluster.cluster.leaves import Arrays, check_blocks
from pes_cluster.cluster.local_pool import in_order
from pes_cluster.cluster.members import (
    Member,
    Recovery,
    dealt,
    free_slot,
    owners,
    spread,
)
from pes_cluster.cluster.pool import Lost, Scored
from pes_cluster.cluster.scaling import Change, Layout, change, wanted_shards
from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.cluster.transport import Failure, Nodes, Transport
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import Report
from pes_cluster.core.task import Theta

logger = logging.getLogger(__name__)

REST_SECONDS = 60.0  # Between attempts at new shards, once one has failed to start.


class ShardPool:
    """A pool of shard processes behind a transport.

    Attributes:
        num_blocks: How many blocks they own together.
        recovered: How many lost shards have been rebuilt.
        replayed: How many windows were gone through again for that.
    """

    def __init__(
        self,
        work: Work,
        transport: Transport,
        settings: ClusterSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._work, self._transport, self._settings = work, transport, settings
        self._clock = clock
        program = work.program()
        self.num_blocks, self._shaped = program.num_blocks, program.scored is not None
        self.recovered = self.replayed = 0
        self._calls = Calls(transport, settings.step_deadline, clock)
        self._copies = Copies(transport, self._calls, self._use_buddies(), clock)
        self._asked_shards, self._losses = settings.shards, Losses()
        self._next_step = 0
        self._ahead: tuple[int, Pending] | Lost | None = None
        self._step_seconds = 0.0
        self._suspected: dict[str, float] = {}
        self._rest_until = 0.0
        self._events: list[Event] = []
        self._members: list[Member] = []
        self._joining: list[Member] = []
        for _ in range(wanted_shards(settings.shards, self._nodes, self.num_blocks, 1)):
            self._members.append(self._begin())

    @property
    def shards(self) -> int:
        """How many shards own blocks now."""
        return len(self._members)

    # --- What a pool does -------------------------------------------------------------

    def restore(self, blocks: dict[int, Arrays] | None, next_step: int) -> Lost | None:
        """See `Pool`."""
        check_blocks(blocks, self.num_blocks)
        indices = range(self.num_blocks)
        given = {index: blocks[index] if blocks else None for index in indices}
        return self._hand_out(given, next_step)

    def step(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """See `Pool`."""
        seen = self._window("advance", outer_step, theta)
        return seen if isinstance(seen, Lost) else in_order([seen])

    def submit(self, outer_step: int, theta: Theta) -> None:
        """See `Pool`."""
        lost = self._tend()
        self._ahead = lost or (outer_step, self._send("advance", outer_step, theta))

    def score(self, outer_step: int, theta: Theta) -> list[Scored] | Lost:
        """See `Pool`."""
        seen = self._window("score", outer_step, theta)
        if isinstance(seen, Lost):
            return seen
        return [Scored(*one) for one in in_order([seen])]

    def weighted_sum(
        self, theta: Theta, weights: list[np.ndarray]
    ) -> list[Theta] | Lost:
        """See `Pool`."""
        sent = self._transport.shared(theta)
        return _listed(
            self._read(
                "weighted_sum", lambda items: (sent, {i: weights[i] for i in items})
            )
        )

    def probe(self, outer_step: int, theta: Theta) -> list[Report] | Lost:
        """See `Pool`."""
        sent = self._transport.shared(theta)
        return _listed(self._read("probe", lambda items: (outer_step, sent, items)))

    def evaluate(
        self, theta: Theta, outer_step: int, episodes: int
    ) -> list[float] | Lost:
        """See `Pool`."""
        sent = self._transport.shared(theta)

        def ask(items: Sequence[int]) -> Pending:
            shares = dealt(self._members, items)
            return self._calls.ask(
                "evaluate", shares, lambda items: (sent, outer_step, items)
            )

        seen = self._gather(ask(range(episodes)), lambda asked: ask(asked.items))
        return _listed(seen)

    def save(self, folder: str) -> list[Part] | Lost:
        """See `Pool`."""
        seen = self._read(
            "save", lambda items: (folder, f"blocks_{min(items)}_{max(items)}", items)
        )
        if not isinstance(seen, Lost):
            self._losses = Losses()  # A durable checkpoint is progress.
        return _listed(seen)

    def resize(self, shards: int | None) -> None:
        """See `Pool`."""
        self._asked_shards, self._rest_until = shards, 0.0

    def rescale(self, work: Work) -> Lost | None:
        """See `Pool`."""
        self._work = work
        for member in [*self._members, *self._joining]:
            self._transport.call(member.actor, "retool", work)
        if not any(member.blocks for member in self._members):
            self.num_blocks = work.program().num_blocks
            return None
        before, self.num_blocks = self.num_blocks, work.program().num_blocks
        kept = self._read(
            "resized", lambda items: (items,), range(min(before, self.num_blocks))
        )
        if isinstance(kept, Lost):
            return kept
        for member in self._members:
            self._transport.call(member.actor, "release", member.blocks)
        blocks = {index: kept.get(index) for index in range(self.num_blocks)}
        return self._hand_out(blocks, self._next_step)

    def events(self) -> list[Event]:
        """See `Pool`."""
        events, self._events = self._events, []
        return events

    def counters(self) -> dict[str, float]:
        """See `Pool`."""
        return {"recovered": self.recovered, "replayed": self.replayed}

    def notice(self) -> str | None:
        """See `Pool`."""
        if self._nodes.here in self._nodes.leaving:
            return "the driver's own node is about to be taken away"
        return None

    def close(self) -> None:
        """See `Pool`."""
        self._transport.close()

    # --- Windows and reads ------------------------------------------------------------

    def _hand_out(self, blocks: Blocks, step: int) -> Lost | None:
        """Gives every block to a shard, as the state that everything starts from."""
        self._ahead, self._next_step = None, step
        self._copies.begin(blocks, step)
        if not self._members:
            self._members.append(self._begin())
        shares = assign(len(blocks), len(self._members))
        for member in self._members[len(shares) :]:
            self._transport.kill(member.actor)
        self._members = self._members[: len(shares)]
        for member, owned in zip(self._members, shares, strict=True):
            member.blocks, member.late, member.recovering = owned, None, []
        done = self._read(
            "adopt", lambda items: ({i: blocks[i] for i in items}, items, step)
        )
        return done if isinstance(done, Lost) else None

    def _window(
        self, method: str, outer_step: int, theta: Theta
    ) -> dict[int, Any] | Lost:
        """Advances every block; then remembers theta, and copies where it is due."""
        began = self._clock()
        pending = self._sent(method, outer_step, theta)
        if isinstance(pending, Lost):
            return pending
        # Who was asked last for a block; if that shard is lost, the block has to be
        # asked for again, also where it had answered: its answer is then the same.
        last = {i: asked.member for asked in pending.values() for i in asked.items}

        def again(asked: Asked) -> Pending:
            blocks = {*asked.items, *asked.member.blocks}
            return more([i for i in blocks if i not in last or last[i].lost])

        def more(blocks: Sequence[int]) -> Pending:
            on_time = [member for member in self._members if member.late is None]
            shares = owners(on_time, blocks)
            last.update({i: member for member, items in shares for i in items})
            sent = self._transport.shared(theta)
            return self._calls.ask(
                method, shares, lambda items: (outer_step, sent, items)
            )

        seen = self._gather(pending, again)
        if seen == {}:  # All are late: there is nothing to go on with.
            self._catch_up(wait=True)
            seen = self._gather(more(range(self.num_blocks)), again)
        if isinstance(seen, Lost):
            return seen
        self._next_step = outer_step + 1
        self._copies.remember(outer_step, theta)
        self._step_seconds = self._clock() - began
        self._calls.slowest = max(self._calls.slowest, self._step_seconds)
        if self._copies.due(self._step_seconds, theta):
            self._copies.make(self._members, self._next_step, self._avoided())
        return seen

    def _sent(self, method: str, outer_step: int, theta: Theta) -> Pending | Lost:
        """The calls of a window, made now unless they were made ahead."""
        ahead, self._ahead = self._ahead, None
        if isinstance(ahead, Lost):
            return ahead
        if ahead is not None and ahead[0] == outer_step:
            return ahead[1]
        return self._tend() or self._send(method, outer_step, theta)

    def _send(self, method: str, outer_step: int, theta: Theta) -> Pending:
        sent = self._transport.shared(theta)
        shares = [(m, m.blocks) for m in self._members if m.blocks and m.late is None]
        return self._calls.ask(method, shares, lambda items: (outer_step, sent, items))

    def _read(
        self, method: str, arguments: Arguments, indices: Sequence[int] | None = None
    ) -> dict[int, Any] | Lost:
        """Asks the owners of blocks for something that may be asked for again.

        Late blocks are waited for.
        """
        self._catch_up(wait=True)

        def ask(items: Sequence[int]) -> Pending:
            return self._calls.ask(method, owners(self._members, items), arguments)

        pending = ask(range(self.num_blocks) if indices is None else indices)
        return self._gather(pending, lambda asked: ask(asked.items))

    def _gather(
        self, pending: Pending, again: Callable[[Asked], Pending]
    ) -> dict[int, Any] | Lost:
        """Takes the answers as they come; rebuilds what is lost, and asks `again`."""
        answers: dict[int, Any] = {}
        while pending:
            for asked, answer in list(self._calls.answers(pending)):
                if not isinstance(answer, Failure):
                    self._recovered(asked.member)
                    answers |= answer
                    continue
                if not asked.member.lost:
                    given_up = self._replace(asked.member, answer)
                    if given_up is not None:
                        return given_up
                pending |= again(asked)
        return answers

    # --- What is lost -----------------------------------------------------------------

    def _replace(self, member: Member, failure: Failure) -> Lost | None:
        """Rebuilds a lost shard, or says why the run cannot go on."""
        member.lost = True
        node = self._transport.node_of(member.actor)
        self._log("lost", shard=member.slot, node=node or "", reason=failure.reason)
        # Before it is replaced: a shard that only hangs must never answer again.
        self._transport.kill(member.actor)
        self._members.remove(member)
        hosts = len(self._nodes.alive)
        verdict = judge(self._losses, self._settings.budgets, failure, node, hosts)
        self._losses = verdict.losses
        if verdict.give_up is not None:
            return Lost(member.slot, verdict.give_up, user_error=verdict.user_error)
        if failure.stored or self._copies.gone(member.blocks):
            reason = f"{failure.reason}, and the copy of its blocks is gone too"
            return Lost(member.slot, reason, resumable=True)
        if node is not None:
            self._suspected[node] = self._clock() + verdict.avoid_seconds
        self._rehouse(member)
        return None

    def _rehouse(self, lost: Member) -> None:
        """Gives a lost shard's blocks to a new one, or to the others."""
        began = self._clock()
        heirs = self._heirs(lost.slot)
        for heir, blocks in spread(heirs or self._members, lost.blocks):
            replayed = self._copies.adopt(heir, blocks)
            heir.recovering.append(Recovery(lost.slot, began, replayed))

    def _heirs(self, slot: int) -> list[Member]:
        """A new shard in the place of a lost one; none where there is no room."""
        started = [m for m in self._joining if self._transport.node_of(m.actor)]
        if started:
            heir = started[0]
            self._joining.remove(heir)
        elif self._room() > 0 or not self._members:
            heir = self._begin(slot)
        else:
            return []
        self._members = sorted([*self._members, heir], key=lambda m: m.slot)
        if self._settings.on_loss == "proceed" and not self._shaped:
            heir.late = self._next_step
        return [heir]

    def _recovered(self, member: Member) -> None:
        """Notes what an answer has brought back."""
        member.adopting = []
        for recovery in member.recovering:
            self.recovered += 1
            self.replayed += recovery.replayed
            self._log(
                "recovered",
                shard=recovery.shard,
                node=self._transport.node_of(member.actor) or "",
                replayed=recovery.replayed,
                seconds=round(self._clock() - recovery.began, 3),
            )
        member.recovering = []

    def _catch_up(self, wait: bool) -> None:
        """Brings late blocks through the windows that went on without them.

        Only of shards that have adopted theirs, or of all, if they are waited for.
        """
        for member in self._members:
            adopted = self._transport.wait(member.adopting, 0)
            if member.late is None or not (
                wait or len(adopted) == len(member.adopting)
            ):
                continue
            ring = self._copies.since(member.late)
            call = self._transport.call(member.actor, "replay", member.blocks, ring)
            member.adopting.append(call)
            member.late = None

    # --- Hosts that come and go -------------------------------------------------------

    def _tend(self) -> Lost | None:
        """What is to be done between two steps, besides them."""
        self._copies.take_arrivals()
        self._catch_up(wait=False)
        if self._copies.in_danger():
            self._copies.make(self._members, self._next_step, self._avoided())
        ready = self._ready()
        layout = Layout(
            tuple(self._transport.node_of(member.actor) for member in self._members),
            tuple(self._transport.node_of(member.actor) or "" for member in ready),
            len(self._joining) - len(ready),
        )
        wanted = wanted_shards(
            self._asked_shards, self._nodes, self.num_blocks, self.shards
        )
        return self._apply(change(wanted, self._nodes, layout), ready)

    def _ready(self) -> list[Member]:
        """The new shards that have started; those that failed are given up."""
        ready = []
        for member in list(self._joining):
            placed = self._transport.node_of(member.actor) is not None
            limit = self._settings.step_deadline if placed else START_SECONDS
            late = self._clock() - member.began > limit
            if self._transport.wait([member.ready], 0):
                if not isinstance(self._transport.result(member.ready), Failure):
                    ready.append(member)
                    continue
                late = True
            if late:
                self._dismiss(member)
                self._rest_until = self._clock() + REST_SECONDS
        return ready

    def _apply(self, change: Change, ready: list[Member]) -> Lost | None:
        if self._clock() >= self._rest_until:
            for _ in range(min(change.start, self._room())):
                member = self._begin()
                member.ready = self._transport.call(member.actor, "snapshot", [])
                self._joining.append(member)
        waiting = [member for member in self._joining if member not in ready]
        for member in [*ready, *waiting][len(self._joining) - change.drop :]:
            self._dismiss(member)
        if change.keep is None:
            return None
        kept = [self._members[position] for position in change.keep]
        return self._rebalance(kept, [m for m in ready if m in self._joining])

    def _rebalance(self, kept: list[Member], joined: list[Member]) -> Lost | None:
        """Moves blocks so that these shards, and no others, own all of them."""
        if not self._copies.make_now(self._members, self._next_step, self._avoided()):
            return None  # Somebody is lost, which the next call will find.
        owners_before = {i: member for member in self._members for i in member.blocks}
        self._joining = [member for member in self._joining if member not in joined]
        gone = [member for member in self._members if member not in kept]
        self._members = sorted([*kept, *joined], key=lambda member: member.slot)
        moved = 0
        for member, owned in zip(
            self._members, assign(self.num_blocks, len(self._members)), strict=False
        ):
            self._transport.call(
                member.actor, "release", sorted({*member.blocks} - {*owned})
            )
            taken = [i for i in owned if owners_before[i] is not member]
            member.blocks = [i for i in owned if owners_before[i] is member]
            self._copies.adopt(member, taken)
            moved += len(taken)
        self._log_moves(joined, gone, moved)
        for member in gone:
            self._transport.kill(member.actor)
        return None

    def _log_moves(self, joined: list[Member], gone: list[Member], moved: int) -> None:
        for member in joined:
            self._log("joined", node=self._transport.node_of(member.actor) or "")
        for node in {self._transport.node_of(member.actor) for member in gone}:
            if node in self._nodes.leaving:
                self._log("drained", node=node or "")
        self._log("moved", blocks=moved, shards=self.shards)

    def _room(self) -> int:
        """How many more shards fit on the hosts that are not to be avoided."""
        avoid = self._avoided()
        taken = sum(
            self._transport.node_of(member.actor) not in avoid
            for member in [*self._members, *self._joining]
        )
        return max(self._nodes.slots(avoid) - taken, 0)

    def _begin(self, slot: int | None = None) -> Member:
        actor = self._transport.start_shard(self._work, self._avoided())
        taken = [*self._members, *self._joining]
        return Member(free_slot(taken) if slot is None else slot, actor, self._clock())

    def _dismiss(self, member: Member) -> None:
        self._transport.kill(member.actor)
        self._joining.remove(member)

    @property
    def _nodes(self) -> Nodes:
        return self._transport.nodes()

    def _avoided(self) -> frozenset[str]:
        now = self._clock()
        self._suspected = {n: t for n, t in self._suspected.items() if t > now}
        return frozenset({*self._suspected, *self._nodes.leaving})

    def _use_buddies(self) -> bool:
        program, settings = self._work.program(), self._settings
        if settings.snapshots != "auto":
            return settings.snapshots == "buddies"
        size = block_bytes(program.init, self._work.initial_theta())
        return size * program.num_blocks > DRIVER_BYTES

    def _log(self, kind: str, **fields: Field) -> None:
        self._events.append(Event(kind, self._next_step, dict(fields)))
        details = ", ".join(f"{name} {value}" for name, value in fields.items())
        logger.info("%s after outer step %d: %s", kind, self._next_step, details)


def _listed(seen: dict[int, Any] | Lost) -> Any:
    return seen if isinstance(seen, Lost) else in_order([seen])
