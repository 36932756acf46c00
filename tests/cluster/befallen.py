"""Runs of 24 steps on scripted hosts, and what can befall them."""

import functools
import pathlib
from collections.abc import Callable
from typing import Any

from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.settings import ClusterSettings, RunSettings
from pes_cluster.cluster.shard_pool import ShardPool
from pes_cluster.core.trees import sha256

from .scripted import OPTIMIZER, Scripted, drive, local, work
from .scripted_transport import Hook, Process, ScriptedTransport

RUN = RunSettings(outer_steps=24, eval_every=8, eval_episodes=3)
OF_SHARDS = ("lost", "recovered", "moved", "joined", "drained", "fell_back")
HOSTS = {"a": 1, "b": 1, "c": 1, "d": 1}


class Run:
    """A run of 24 steps on scripted hosts; what came of it."""

    def __init__(
        self,
        folder: pathlib.Path,
        *hooks: Hook,
        hosts: dict[str, int] | None = None,
        method: Scripted | None = None,
        steps: int = 24,
        seconds: dict[str, float] | None = None,
        **chosen: Any,
    ) -> None:
        self.cluster = ScriptedTransport(hosts or HOSTS, hooks)
        self.cluster.seconds |= seconds or {}
        job = work(method or Scripted())
        self.pool = ShardPool(
            job, self.cluster, ClusterSettings(**chosen), self.cluster.clock
        )
        engine = PoolEngine(self.pool, job, OPTIMIZER, RUN)
        told: list[Event] = []
        self.outcome, self.records = drive(
            engine, folder, outer_steps=steps, on_event=told.append
        )
        self.events = [event for event in told if event.kind in OF_SHARDS]

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]

    def lost_once(self) -> bool:
        """One shard was rebuilt; a new one came where there was time left for it."""
        rest = self.kinds()[2:]
        whole = rest == [] or (rest == ["joined", "moved"] and self.pool.shards == 4)
        return self.kinds()[:2] == ["lost", "recovered"] and whole

    def only(self, kind: str) -> dict[str, Any]:
        (event,) = [event for event in self.events if event.kind == kind]
        return event.fields

    @property
    def bits(self) -> Any:
        assert self.outcome.status == "finished", self.outcome.error
        losses = [(record.loss, record.eval_loss) for record in self.records]
        return sha256(self.outcome.theta), losses


@functools.cache
def calm(shaped: bool = False) -> Any:
    """The bits of a run in one process, to which nothing happens."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        engine = local(Scripted(shaped=shaped), 1, RUN)
        outcome, records = drive(engine, folder, outer_steps=24)
    losses = [(record.loss, record.eval_loss) for record in records]
    return sha256(outcome.theta), losses


def crash(cluster: ScriptedTransport, process: Process) -> None:
    cluster.crash(process)


def hang(cluster: ScriptedTransport, process: Process) -> None:
    cluster.hang(process)


def cut(cluster: ScriptedTransport, process: Process) -> None:
    assert process.node is not None
    cluster.cut(process.node)


def announce(seconds: float) -> Callable[[ScriptedTransport, Process], None]:
    def happens(cluster: ScriptedTransport, process: Process) -> None:
        assert process.node is not None
        cluster.announce(process.node, seconds)

    return happens


def join(*hosts: str) -> Callable[[ScriptedTransport, Process], None]:
    def happens(cluster: ScriptedTransport, process: Process) -> None:
        for host in hosts:
            cluster.join(host)

    return happens
