"""Shards killed at awkward moments: the run goes on to the same bits by itself."""

import os
import signal
from pathlib import Path

import pytest
import ray

from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.settings import ClusterSettings, RunSettings
from pes_cluster.core.trees import sha256
from pes_cluster.ray_backend.pool import RayPool
from tests.cluster.scripted import OPTIMIZER, Scripted, drive, local, work

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

RUN = RunSettings(outer_steps=24, eval_every=8, eval_episodes=3)


class Killed(PoolEngine):
    """Loses the first shards, so many, before some outer steps, or while saving."""

    def __init__(self, method: Scripted, kills: dict[int, int]) -> None:
        self.job, self.kills = work(method), kills
        self.pool = RayPool(self.job, ClusterSettings(shards=2))
        super().__init__(self.pool, self.job, OPTIMIZER, RUN)

    def advance(self, state, outer_step, limit):
        self.kill(self.kills.get(outer_step, 0))
        return super().advance(state, outer_step, limit)

    def save(self, folder):
        if folder.endswith("step_00000010"):
            self.kill(1)
        return super().save(folder)

    def kill(self, count: int) -> None:
        for member in self.pool._members[:count]:
            process = member.actor.__ray_call__.remote(lambda self: os.getpid())
            os.kill(ray.get(process), signal.SIGKILL)


@pytest.mark.parametrize("shaped", [False, True])
def test_the_bits_are_those_of_a_run_without_losses(
    shaped: bool, tmp_path: Path
) -> None:
    method = Scripted(shaped=shaped)
    # Both before anything was remembered, one of one, and whatever there is by then.
    engine = Killed(method, {0: 2, 3: 1, 17: 2})
    events: list[Event] = []
    outcome, records = drive(
        engine, tmp_path / "ray", outer_steps=24, on_event=events.append
    )
    calm, others = drive(local(method, 1, RUN), tmp_path / "local", outer_steps=24)
    assert outcome.status == "finished", outcome.error
    kinds = [event.kind for event in events]
    assert kinds.count("recovered") == kinds.count("lost") >= 5
    assert sha256(outcome.theta) == sha256(calm.theta)
    for one, other in zip(records, others, strict=True):
        assert (one.loss, one.eval_loss) == (other.loss, other.eval_loss)
