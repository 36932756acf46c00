"""A cluster in this process: real shards, a clock that is only counted, any failure.

Calls run when somebody waits, in the order in which they were made, one process after
another. What a process was told and what it holds die with it.
"""

import copy
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from pes_cluster.cluster.buddy import Buddy
from pes_cluster.cluster.checkpoint import CheckpointError
from pes_cluster.cluster.shard import Shard
from pes_cluster.cluster.transport import Failure, Node, Nodes

DETECTION = 4.0  # Seconds until a silent host is declared dead.
WORK = 0.1  # Seconds of one window.


@dataclasses.dataclass(eq=False)
class Process:
    """A shard or a buddy, and where it is."""

    number: int
    held: Any
    kind: str
    avoid: frozenset[str] = frozenset()
    node: str | None = None
    failure: Failure | None = None
    hung: bool = False


@dataclasses.dataclass(eq=False)
class Made:
    """A call."""

    process: Process
    method: str
    arguments: tuple[Any, ...]
    ended: bool = False
    answer: Any = None


@dataclasses.dataclass
class Host:
    """A host's slots, and what befell it."""

    slots: int
    leaves_at: float | None = None
    dies_at: float | None = None
    silent: bool = False
    alive: bool = True


Hook = Callable[["ScriptedTransport", Made], None]


class ScriptedTransport:
    """See `cluster.transport.Transport`.

    Attributes:
        now: Seconds.
        seconds: What a call of a method takes; nothing if it is not named.
        hosts: By id.
        hooks: Called before a call runs; they let things befall the cluster.
        made: Every call, in order.
    """

    def __init__(self, hosts: dict[str, int], hooks: Sequence[Hook] = ()) -> None:
        self.now = 0.0
        self.seconds = {"advance": WORK, "score": WORK}
        self.hosts = {name: Host(slots) for name, slots in hosts.items()}
        self.hooks = list(hooks)
        self.made: list[Made] = []
        self.processes: list[Process] = []
        self._waiting: list[Made] = []
        self._functions: dict[str, Any] = {}
        self.here: str | None = None
        self.headless_until = 0.0
        self.closed = False

    # --- What befalls it --------------------------------------------------------------

    def shard_on(self, host: str) -> Process:
        """The living shard of a host."""
        return next(p for p in self.shards() if p.node == host)

    def shards(self) -> list[Process]:
        """The living shards."""
        return [p for p in self.processes if p.kind == "shard" and p.failure is None]

    def crash(self, process: Process) -> None:
        """The process dies; its host lives."""
        self._end(process, Failure("process", "its process died"))

    def hang(self, process: Process) -> None:
        """The process never answers again."""
        process.hung = True

    def cut(self, host: str) -> None:
        """The host is silent; some seconds later it is declared dead."""
        self.hosts[host].silent = True
        self.hosts[host].dies_at = self.now + DETECTION

    def lose_head(self, seconds: float) -> None:
        """Nothing is answered until the head is back; nobody is declared dead."""
        self.headless_until = self.now + seconds

    def announce(self, host: str, seconds: float) -> None:
        """The host will be taken away."""
        self.hosts[host].leaves_at = self.now + seconds

    def join(self, host: str, slots: int = 1) -> None:
        """A host comes."""
        self.hosts[host] = Host(slots)

    # --- The protocol -----------------------------------------------------------------

    def nodes(self) -> Nodes:
        alive = [
            Node(name, host.slots, self._leaving(host))
            for name, host in self.hosts.items()
            if host.alive
        ]
        return Nodes(tuple(alive), self.here)

    def start_shard(self, work: Any, avoid: frozenset[str]) -> Process:
        shard = Shard(work, self._functions)
        process = Process(len(self.processes), shard, "shard", avoid)
        self.processes.append(process)
        self._place()
        return process

    def start_buddy(self, node: str) -> Process:
        process = Process(len(self.processes), Buddy(), "buddy", node=node)
        self.processes.append(process)
        return process

    def node_of(self, actor: Process) -> str | None:
        return actor.node

    def call(self, actor: Process, method: str, *arguments: Any) -> Made:
        made = Made(actor, method, arguments)
        self.made.append(made)
        self._waiting.append(made)
        return made

    def shared(self, value: Any) -> Any:
        return value

    def wait(self, calls: Sequence[Made], timeout: float) -> list[Made]:
        self._run()
        ended = [call for call in calls if call.ended]
        if not ended and timeout > 0:
            self._sleep(timeout)
            ended = [call for call in calls if call.ended]
        return ended

    def result(self, call: Made) -> Any:
        if isinstance(call.answer, CheckpointError):
            raise call.answer
        return call.answer

    def kill(self, actor: Process) -> None:
        self._end(actor, Failure("process", "killed"))

    def close(self) -> None:
        self.closed = True

    # --- How it runs ------------------------------------------------------------------

    def clock(self) -> float:
        return self.now

    def _sleep(self, seconds: float) -> None:
        """Lets time pass, to the next thing that is to happen at the latest."""
        events = [t for host in self.hosts.values() for t in self._events(host)]
        events.append(self.headless_until)
        until = min([t for t in events if t > self.now] + [self.now + seconds])
        self.now = until
        for name, host in self.hosts.items():
            if host.alive and any(t <= self.now for t in self._events(host)):
                self._host_ends(name, host)
        self._run()

    def _events(self, host: Host) -> list[float]:
        return [t for t in (host.leaves_at, host.dies_at) if t is not None]

    def _host_ends(self, name: str, host: Host) -> None:
        host.alive = False
        kind = "preempted" if host.leaves_at is not None else "host"
        for process in self.processes:
            if process.node == name and process.failure is None:
                self._end(process, Failure(kind, "its node died"))

    def _leaving(self, host: Host) -> float | None:
        return None if host.leaves_at is None else host.leaves_at - self.now

    def _place(self) -> None:
        for process in self.shards():
            if process.node is None:
                free = {
                    name: self._free(name, host)
                    for name, host in self.hosts.items()
                    if host.alive and not host.silent and name not in process.avoid
                }
                best = max(free, key=lambda name: free[name], default=None)
                if best is not None and free[best] > 0:
                    process.node = best

    def _free(self, name: str, host: Host) -> int:
        return host.slots - sum(p.node == name for p in self.shards())

    def _run(self) -> None:
        self._place()
        ran = True
        while ran:
            ran = False
            for made in list(self._waiting):
                if made in self._waiting and self._runnable(made):
                    ran = True
                    self._execute(made)

    def _runnable(self, made: Made) -> bool:
        process = made.process
        if self.now < self.headless_until:
            return False
        if process.failure is not None:
            return True
        silent = process.node is None or self.hosts[process.node].silent
        first = next(one for one in self._waiting if one.process is process)
        needs = [one for one in made.arguments if isinstance(one, Made)]
        given = all(one.ended for one in needs)
        return first is made and not silent and not process.hung and given

    def _execute(self, made: Made) -> None:
        for hook in list(self.hooks):
            hook(self, made)
        process = made.process
        if process.failure is None and not self._runnable(made):
            return  # A hook has seen to it.
        self._waiting.remove(made)
        made.ended = True
        made.answer = process.failure or self._answer(made)

    def _answer(self, made: Made) -> Any:
        arguments = []
        for one in made.arguments:
            value = one.answer if isinstance(one, Made) else one
            if isinstance(value, Failure):
                return dataclasses.replace(value, stored=True)
            # As over a wire: nobody sees what another changes later.
            arguments.append(value if made.method == "retool" else copy.deepcopy(value))
        self.now += self.seconds.get(made.method, 0.0)
        try:
            answer = getattr(made.process.held, made.method)(*arguments)
        except CheckpointError as error:
            return error
        except Exception as error:  # Of the task's own code, which may raise anything.
            line = " ".join(f"{type(error).__name__}: {error}".split())
            return Failure("task", line)
        return copy.deepcopy(answer)

    def _end(self, process: Process, failure: Failure) -> None:
        if process.failure is None:
            process.failure = failure
            process.held = None
            self._place()


def once(
    happens: Callable[[ScriptedTransport, Process], None],
    method: str,
    *,
    step: int | None = None,
    host: str | None = None,
) -> Hook:
    """Lets something happen, once, before a call of a method (of a step, on a host)."""
    done: list[bool] = []

    def hook(cluster: ScriptedTransport, made: Made) -> None:
        of_step = step is None or (made.arguments and made.arguments[0] == step)
        there = host is None or made.process.node == host
        if not done and made.method == method and of_step and there:
            done.append(True)
            happens(cluster, made.process)

    return hook
