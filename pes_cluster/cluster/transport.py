"""How shards are reached: processes that are started, called and killed somewhere.

Calls are asynchronous and a process runs them in the order in which they were made. An
answer is a value or a `Failure`; nothing is raised across this boundary. Nothing here
blocks but `wait`, which has a timeout.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, Protocol

Actor = Any  # A process, or what stands for it.
Call = Any  # An answer that is to come; may be an argument of another call.

FailureKind = Literal["task", "process", "host", "preempted", "hung", "unplaced"]


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a call has no answer.

    Attributes:
        kind: ``task``: the code that was called raised, the process lives. ``process``:
            the process died, its host lives. ``host``: its host died or cannot be
            reached. ``preempted``: its host was taken away after a notice. ``hung``: no
            answer within the deadline. ``unplaced``: it did not start in time.
        reason: One line.
        stored: Not the called process failed, but the call whose answer it was to be
            given: a copy that somebody else kept, say.
    """

    kind: FailureKind
    reason: str
    stored: bool = False


@dataclasses.dataclass(frozen=True)
class Node:
    """A host of the cluster, as far as it is known.

    Attributes:
        id: Unique over the cluster's life; a host that comes back has another.
        slots: How many shards it could hold if nothing else ran there.
        leaving_in: Seconds until it is taken away, where that was announced.
    """

    id: str
    slots: int
    leaving_in: float | None = None


@dataclasses.dataclass(frozen=True)
class Nodes:
    """The hosts that live, by the latest word, and the driver's own."""

    alive: tuple[Node, ...]
    here: str | None = None

    def slots(self, avoid: frozenset[str] = frozenset()) -> int:
        """How many shards fit on the nodes that stay and are not to be avoided."""
        return sum(node.slots for node in self.staying(avoid))

    def staying(self, avoid: frozenset[str] = frozenset()) -> tuple[Node, ...]:
        """The nodes that are not leaving and not to be avoided."""
        return tuple(
            node
            for node in self.alive
            if node.leaving_in is None and node.id not in avoid
        )

    @property
    def leaving(self) -> dict[str, float]:
        """Seconds left, by node."""
        return {
            node.id: node.leaving_in
            for node in self.alive
            if node.leaving_in is not None
        }


class Transport(Protocol):
    """Starts, calls and kills processes."""

    def nodes(self) -> Nodes:
        """The latest view of the cluster."""
        ...

    def start_shard(self, work: Any, avoid: frozenset[str]) -> Actor:
        """Begins to start a process that holds a `Shard`, not on the avoided nodes."""
        ...

    def start_buddy(self, node: str) -> Actor:
        """Begins to start a process that holds a `Buddy`, on this node."""
        ...

    def node_of(self, actor: Actor) -> str | None:
        """Where a process runs; None while it has not started, "" if it never did."""
        ...

    def call(self, actor: Actor, method: str, *arguments: Any) -> Call:
        """Calls a method of what the process holds."""
        ...

    def shared(self, value: Any) -> Any:
        """Something to pass to many calls in the value's place, sent once a host."""
        ...

    def wait(self, calls: Sequence[Call], timeout: float) -> list[Call]:
        """Returns the calls that have ended, at the latest after so many seconds."""
        ...

    def result(self, call: Call) -> Any:
        """The value of a call that has ended, or its `Failure`.

        Raises:
            CheckpointError: The call could not write its part of a checkpoint.
        """
        ...

    def kill(self, actor: Actor) -> None:
        """Ends a process for good; it must not answer any more."""
        ...

    def close(self) -> None:
        """Ends every process that was started."""
        ...
