"""Calls to shards, each with its deadline: what ended well, and what never will."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pes_cluster.cluster.members import Member, Recovery, Shares
from pes_cluster.cluster.transport import Call, Failure, Transport

START_SECONDS = 60.0  # For a process to be placed and to begin.
GRACE, SLOWER = 90.0, 20.0  # A shard hangs: later than both, and than the slowest step.
WINDOWS = ("advance", "score", "weighted_sum")  # All else may take its time.
PATIENCE = 1.0  # Seconds between looks at the deadlines.

Arguments = Callable[[list[int]], tuple[Any, ...]]  # Of a call for these items.


@dataclasses.dataclass(frozen=True)
class Asked:
    """A call under way.

    Attributes:
        member: Who was asked.
        items: For what.
        deadline: Until when.
        adopting: The calls before it that hand blocks over: an answer shows that they
            went well, a failure may be theirs.
        recovering: What an answer shows to be brought back.
    """

    member: Member
    items: list[int]
    deadline: float
    adopting: tuple[Call, ...] = ()
    recovering: tuple[Recovery, ...] = ()

    @classmethod
    def nothing(cls, member: Member) -> "Asked":
        """Of a shard from which no answer is awaited."""
        return cls(member, [], math.inf)


Pending = dict[Call, Asked]


class Calls:
    """Makes calls through a transport, and tells a late answer from a lost one.

    Attributes:
        slowest: Seconds of the slowest step so far; 0 before the first.
    """

    def __init__(
        self, transport: Transport, limit: float, clock: Callable[[], float]
    ) -> None:
        """`limit` is the most seconds that any call is given."""
        self._transport, self._limit, self._clock = transport, limit, clock
        self.slowest = 0.0

    def ask(self, method: str, shares: Shares, arguments: Arguments) -> Pending:
        """Calls a method of several shards, each with its own items."""
        return {
            self._transport.call(member.actor, method, *arguments(items)): Asked(
                member,
                items,
                self._deadline(member, method),
                tuple(member.adopting),
                tuple(member.recovering),
            )
            for member, items in shares
        }

    def answers(self, pending: Pending) -> Iterator[tuple[Asked, Any]]:
        """Waits for some calls, takes them from `pending` and yields their answers.

        An answer is a value, or the `Failure` at the root of its absence.
        """
        ended = self._transport.wait(list(pending), self._patience(pending))
        for call in ended:
            asked = pending.pop(call)
            yield asked, self._answer(call, asked)
        for call, asked in list(pending.items()):
            if self._unplaced(asked.member):
                reason = f"not started within {START_SECONDS:g} s"
                yield pending.pop(call), Failure("unplaced", reason)
            elif asked.deadline <= self._clock():
                yield pending.pop(call), Failure("hung", "no answer by its deadline")

    def all_ended(self, calls: Sequence[Call], seconds: float) -> bool:
        """Waits until all of these have ended, at most so long; whether they have."""
        waiting, until = list(calls), self._clock() + seconds
        while waiting and self._clock() < until:
            ended = self._transport.wait(waiting, until - self._clock())
            waiting = [call for call in waiting if call not in ended]
        return not waiting

    def _patience(self, pending: Pending) -> float:
        nearest = min(asked.deadline for asked in pending.values())
        return min(max(nearest - self._clock(), 0.0), PATIENCE)

    def _unplaced(self, member: Member) -> bool:
        late = self._clock() - member.began > START_SECONDS
        return late and self._transport.node_of(member.actor) is None

    def _answer(self, call: Call, asked: Asked) -> Any:
        answer, member = self._transport.result(call), asked.member
        if not isinstance(answer, Failure):
            member.answered = True
            member.adopting = [c for c in member.adopting if c not in asked.adopting]
            return answer
        # A shard that could not adopt its blocks fails at what was asked next.
        for adopted in self._transport.wait(asked.adopting, 0):
            root = self._transport.result(adopted)
            if isinstance(root, Failure):
                return root
        return answer

    def _deadline(self, member: Member, method: str) -> float:
        """When a call counts as lost: late, against what steps have taken so far.

        Evaluations, checkpoints and replays take other times than steps.
        """
        limit, usual = self._limit, member.answered and not member.adopting
        if method in WINDOWS and usual and self.slowest > 0:
            limit = min(limit, max(GRACE, SLOWER * self.slowest))
        return self._clock() + limit
