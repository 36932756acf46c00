"""Who is there: shards that own blocks, shards that are starting, hosts to avoid."""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from pes_cluster.cluster.calls import START_SECONDS
from pes_cluster.cluster.members import Member, free_slot
from pes_cluster.cluster.scaling import Layout
from pes_cluster.cluster.transport import Failure, Nodes, Transport

REST_SECONDS = 60.0  # Between attempts at new shards, once one has failed to start.
NODES_SECONDS = 900.0  # For a node to be added, where one is on demand.


class Roster:
    """The shards of a pool.

    Attributes:
        members: Those that own blocks, by number.
        joining: Those that are starting, and own nothing yet.
        work: What a new shard is told.
    """

    def __init__(
        self,
        transport: Transport,
        work: Any,
        deadline: float,
        clock: Callable[[], float],
        growing: bool = False,
    ) -> None:
        """Starts with nobody.

        Args:
            transport: How shards are started.
            work: What they are told.
            deadline: The most seconds that a shard may take to build its program.
            clock: Tells the seconds.
            growing: Nodes are added for the shards that wait for one.
        """
        self._growing = growing
        self._transport, self._clock, self._deadline = transport, clock, deadline
        self.work = work
        self.members: list[Member] = []
        self.joining: list[Member] = []
        self._avoided_until: dict[str, float] = {}
        self._rest_until = 0.0

    @property
    def nodes(self) -> Nodes:
        """The hosts, by the latest word."""
        return self._transport.nodes()

    @property
    def avoided(self) -> frozenset[str]:
        """Hosts that get no new shard: lately lost, or about to leave.

        Where no others are left, they are better than none.
        """
        now = self._clock()
        kept = {n: t for n, t in self._avoided_until.items() if t > now}
        self._avoided_until = kept
        leaving = frozenset(self.nodes.leaving)
        for avoided in (leaving | kept.keys(), leaving):
            if self.nodes.slots(avoided) > 0:
                return avoided
        return frozenset()

    def avoid(self, node: str | None, seconds: float) -> None:
        """Gives a host no new shard for so long."""
        if node is not None:
            self._avoided_until[node] = self._clock() + seconds

    def node_of(self, member: Member) -> str | None:
        """Where a shard runs; None while it has not started."""
        return self._transport.node_of(member.actor)

    def add(self, slot: int | None = None) -> Member:
        """Begins a shard among those that own blocks."""
        member = self._begin(slot)
        self.members = sorted([*self.members, member], key=lambda one: one.slot)
        return member

    def recruit(self, count: int) -> None:
        """Begins shards on hosts that have room, unless some have just failed."""
        for _ in range(min(count, self.room)):
            member = self._begin(None)
            member.ready = self._transport.call(member.actor, "snapshot", [])
            self.joining.append(member)

    def no_rest(self) -> None:
        """Allows new shards at once."""
        self._rest_until = 0.0

    def heir(self, slot: int, begin: bool) -> Member | None:
        """A shard in a lost one's place; None: the others are to take its blocks.

        Args:
            slot: The lost one's number.
            begin: Whether to begin a new one where there is room for it.
        """
        avoided = self.avoided
        started = [
            member
            for member in self.joining
            if self.node_of(member) and self.node_of(member) not in avoided
        ]
        if started:
            self.settle(self.members, started[:1])
            return started[0]
        if not self.members or (begin and self._space() > 0):
            return self.add(slot)
        return None

    def ready(self) -> list[Member]:
        """The new shards that have started; those that failed to are given up."""
        ready = []
        for member in list(self.joining):
            if self._transport.wait([member.ready], 0):
                failed = isinstance(self._transport.result(member.ready), Failure)
            else:
                placing = NODES_SECONDS if self._growing else START_SECONDS
                placed = self.node_of(member) is not None
                limit = self._deadline if placed else placing
                failed = self._clock() - member.began > limit
                if not failed:
                    continue
            if failed:
                self.dismiss([member])
                self._rest_until = self._clock() + REST_SECONDS
            else:
                ready.append(member)
        return ready

    def layout(self, ready: list[Member]) -> Layout:
        """What the shards are now."""
        return Layout(
            tuple(self.node_of(member) for member in self.members),
            tuple(self.node_of(member) or "" for member in ready),
            len(self.joining) - len(ready),
            self._clock() - max((one.began for one in ready), default=0.0),
        )

    def dismiss(self, members: Iterable[Member]) -> None:
        """Ends shards that are starting."""
        for member in list(members):
            self._transport.kill(member.actor)
            self.joining.remove(member)

    def settle(self, kept: list[Member], joined: list[Member]) -> None:
        """Takes these, and no others, for those that own blocks."""
        self.joining = [member for member in self.joining if member not in joined]
        self.members = sorted([*kept, *joined], key=lambda member: member.slot)

    def _begin(self, slot: int | None) -> Member:
        actor = self._transport.start_shard(self.work, self.avoided)
        taken = [*self.members, *self.joining]
        return Member(free_slot(taken) if slot is None else slot, actor, self._clock())

    @property
    def room(self) -> int:
        """How many new shards can be begun now; none soon after one that failed to."""
        if self._clock() < self._rest_until:
            return 0
        return sys.maxsize if self._growing else self._space()

    def _space(self) -> int:
        """How many more shards fit on the hosts that are not to be avoided."""
        avoided = self.avoided
        here = [
            m for m in [*self.members, *self.joining] if self.node_of(m) not in avoided
        ]
        return max(self.nodes.slots(avoided) - len(here), 0)
