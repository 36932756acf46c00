"""Making the copies that lost blocks are rebuilt from, and taking their arrivals.

The driver keeps the copies itself where they are small or there is no other host;
otherwise a buddy on the next node does, and the arrays never pass through the driver.
"""

import itertools
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from pes_cluster.cluster.calls import Calls
from pes_cluster.cluster.leaves import Arrays, plain
from pes_cluster.cluster.members import Member
from pes_cluster.cluster.scaling import buddy_node
from pes_cluster.cluster.snapshots import Copy, Snapshots
from pes_cluster.cluster.transport import Call, Failure, Transport
from pes_cluster.cluster.work import Work
from pes_cluster.core.task import Theta

DRIVER_BYTES = 64 * 2**20  # Copies of up to this size are the driver's to keep.
COPY_SECONDS = 10.0  # Later than this, a copy is not waited for.
LOST_SECONDS = 60.0  # Later than this, it will not come: the next one may.

Blocks = dict[int, Arrays | None]  # None: a fresh block.


class Copies:
    """The copies of all blocks, wherever they are kept."""

    def __init__(
        self,
        transport: Transport,
        calls: Calls,
        with_buddies: bool,
        clock: Callable[[], float],
    ) -> None:
        self._transport, self._calls, self._clock = transport, calls, clock
        self._with_buddies = with_buddies
        self._buddies: dict[str, Any] = {}
        self._unfit: set[str] = set()  # Nodes on which a buddy has failed.
        self._names = itertools.count()
        self._kept = Snapshots()

    def begin(self, blocks: Blocks, at_step: int) -> None:
        """Forgets everything; the blocks begin as given."""
        self._kept.begin(range(len(blocks)), Copy(at_step, blocks))
        for node in list(self._buddies):
            self._dismiss(node)

    def remember(self, outer_step: int, theta: Theta) -> None:
        """Adds the theta of a window that every block has gone through."""
        self._kept.remember(outer_step, theta)

    def since(self, outer_step: int) -> list[tuple[int, Theta]]:
        """The windows from one on."""
        return self._kept.since(outer_step)

    def due(self, step_seconds: float, theta: Theta) -> bool:
        """Whether it is time for new copies."""
        sizes = [np.asarray(leaf).nbytes for leaf in jax.tree.leaves(theta)]
        return self._kept.due(step_seconds, sum(sizes))

    def make(
        self, members: Iterable[Member], at_step: int, avoid: frozenset[str]
    ) -> None:
        """Asks the shards for copies; they count once they have arrived."""
        began = self._clock()
        asked = {
            self._transport.call(member.actor, "snapshot", member.blocks): member
            for member in members
            if member.blocks and member.late is None
        }
        whole = self._calls.all_ended(list(asked), COPY_SECONDS)
        for call, member in asked.items():
            self._expect(call, member, at_step, avoid)
        self.take_arrivals()
        if whole:
            self._kept.took(self._clock() - began)

    def refresh(
        self, members: Iterable[Member], at_step: int, avoid: frozenset[str]
    ) -> bool:
        """Makes new copies unless some are under way; whether all blocks have one.

        Those that do not arrive soon are not waited for: older ones do as well.
        """
        if not self.under_way:
            self.make(members, at_step, avoid)
        self._calls.all_ended(self._kept.arrivals, COPY_SECONDS)
        self.take_arrivals()
        return not self.gone()

    @property
    def under_way(self) -> bool:
        """Whether copies have been asked for that have not arrived."""
        return bool(self._kept.arrivals)

    def take_arrivals(self) -> None:
        """Counts the copies that have arrived, and forgets the ones before them."""
        for arrival in self._transport.wait(self._kept.arrivals, 0):
            blocks = self._transport.result(arrival)
            if isinstance(blocks, Failure):
                # Not the buddy's fault where the shard had nothing to give.
                self._give_up(arrival, with_buddy=not blocks.stored)
                continue
            for old in self._kept.arrived(arrival, blocks):
                if old.buddy is not None:
                    self._transport.call(old.buddy, "drop", old.name)
        for arrival in self._kept.overdue(self._clock() - LOST_SECONDS):
            self._give_up(arrival, with_buddy=True)

    def _give_up(self, arrival: Call, with_buddy: bool) -> None:
        copy = self._kept.failed(arrival)
        # Another one may be in its place by now.
        if with_buddy and copy.node and self._buddies.get(copy.node) is copy.buddy:
            self._dismiss(copy.node)
            self._unfit.add(copy.node)

    def adopt(self, member: Member, blocks: Sequence[int]) -> int:
        """Lets a shard take blocks over from their copies; returns windows replayed.

        The calls are queued, not awaited: a process runs them in order, so that the
        call that follows meets the blocks as they were.
        """
        replayed = 0
        for copy, indices in self._kept.groups(blocks):
            source: Any = {i: copy.blocks.get(i) for i in indices}
            if copy.buddy is not None:
                source = self._transport.call(copy.buddy, "give", copy.name)
            ring = self._kept.since(copy.at_step)
            call = self._transport.call(
                member.actor, "adopt", source, indices, copy.at_step, ring
            )
            member.adopting.append(call)
            replayed = max(replayed, len(ring))
        member.blocks = sorted({*member.blocks, *blocks})
        return replayed

    def in_danger(self) -> bool:
        """Whether a copy that counts lies on a node that is gone, or will be."""
        staying = {node.id for node in self._transport.nodes().staying()}
        return any(not self._lies_on(copy, staying) for copy in self._kept.of())

    def gone(self, blocks: Sequence[int] | None = None) -> bool:
        """Whether the copy of one of these blocks (by default: of any) is gone."""
        alive = {node.id for node in self._transport.nodes().alive}
        return any(not self._lies_on(copy, alive) for copy in self._kept.of(blocks))

    def _lies_on(self, copy: Copy, nodes: Container[str]) -> bool:
        """Whether a copy is the driver's, or its keeper lives on one of the nodes."""
        if copy.node is None:
            return True
        return copy.node in nodes and self._buddies.get(copy.node) is copy.buddy

    def _expect(
        self, call: Call, member: Member, at_step: int, avoid: frozenset[str]
    ) -> None:
        node = None
        if self._with_buddies:
            here = self._transport.node_of(member.actor)
            node = buddy_node(here, self._transport.nodes(), avoid | self._unfit)
        if node is None:
            self._kept.expect(Copy(at_step), member.blocks, call, self._clock())
            return
        buddy, name = self._buddy(node), f"copy_{next(self._names)}"
        arrival = self._transport.call(buddy, "keep", name, call)
        copy = Copy(at_step, buddy=buddy, name=name, node=node)
        self._kept.expect(copy, member.blocks, arrival, self._clock())

    def _buddy(self, node: str) -> Any:
        if node not in self._buddies:
            self._buddies[node] = self._transport.start_buddy(node)
        return self._buddies[node]

    def _dismiss(self, node: str) -> None:
        """Ends a buddy that failed, or whose copies nobody needs."""
        buddy = self._buddies.pop(node, None)
        if buddy is not None:
            self._transport.kill(buddy)


def with_buddies(work: Work, chosen: str) -> bool:
    """Whether buddies keep the copies, by `cluster.snapshots` and their size."""
    if chosen != "auto":
        return chosen == "buddies"
    program, theta = work.program(), work.initial_theta()

    def leaves(theta: Theta) -> list[Any]:
        block = program.init(theta, 0)
        return [plain(leaf) for leaf in jax.tree.leaves(block)]

    shapes = jax.eval_shape(leaves, theta) if program.jittable else leaves(theta)
    size = sum(leaf.size * np.dtype(leaf.dtype).itemsize for leaf in shapes)
    return size * program.num_blocks > DRIVER_BYTES
