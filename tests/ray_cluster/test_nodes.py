"""Raylets killed, drained and joining, on real Ray: the run gives the same bits."""

import functools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from pes_cluster.cluster.engine import PoolEngine
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.settings import ClusterSettings, RunSettings
from pes_cluster.core.trees import sha256
from pes_cluster.ray_backend.pool import RayPool
from tests.cluster.scripted import OPTIMIZER, Scripted, drive, local, work

from .conftest import AddNode

pytestmark = [pytest.mark.ray, pytest.mark.timeout(120)]

STEPS = 24
RUN = RunSettings(outer_steps=STEPS, eval_every=8, eval_episodes=3)
PATIENCE = 30.0  # Seconds within which what a test waits for has to happen.


Condition = Callable[[RayPool], bool]


class Befallen(PoolEngine):
    """Lets something happen before one step, and waits before others."""

    def __init__(
        self,
        pool: RayPool,
        at: int,
        happens: Callable[[RayPool], Any],
        until: dict[int, Condition],
    ) -> None:
        super().__init__(pool, work(), OPTIMIZER, RUN)
        self.pool, self.at, self.happens, self.until = pool, at, happens, until
        self.seen: list[Event] = []

    def advance(self, state: Any, outer_step: int, limit: int) -> Any:
        if outer_step == self.at:
            self.happens(self.pool)
        condition = self.until.get(outer_step, lambda pool: True)
        deadline = time.monotonic() + PATIENCE
        while not condition(self.pool):
            assert time.monotonic() < deadline, f"not before step {outer_step}"
            time.sleep(0.1)
        advanced = super().advance(state, outer_step, limit)
        self.seen += self.pool.events()
        return advanced

    def kinds(self) -> list[str]:
        return [event.kind for event in self.seen]


@functools.cache
def calm() -> str:
    with tempfile.TemporaryDirectory() as folder:
        return sha256(drive(local(Scripted(), 1, RUN), folder, STEPS)[0].theta)


def run(
    folder: Path,
    at: int,
    happens: Callable[[RayPool], Any],
    until: dict[int, Condition] | None = None,
    **chosen: Any,
) -> Befallen:
    with closing(RayPool(work(), ClusterSettings(**chosen))) as pool:
        engine = Befallen(pool, at, happens, until or {})
        outcome, _ = drive(engine, folder, STEPS)
        assert outcome.status == "finished", outcome.error
        assert sha256(outcome.theta) == calm()
        return engine


@pytest.mark.parametrize("snapshots", ["driver", "buddies"])
def test_the_shards_of_a_killed_raylet_are_rebuilt_elsewhere(
    cluster: Cluster, add_node: AddNode, tmp_path: Path, snapshots: str
) -> None:
    _, doomed = add_node(), add_node()

    def killed(pool: RayPool) -> None:
        cluster.remove_node(doomed, allow_graceful=False)

    def noticed(pool: RayPool) -> bool:
        return doomed.node_id not in {node.id for node in pool._roster.nodes.alive}

    done = run(tmp_path, 13, killed, until={15: noticed}, snapshots=snapshots)
    lost, recovered = done.seen[:2]
    assert (lost.kind, lost.fields["node"]) == ("lost", doomed.node_id)
    assert recovered.kind == "recovered" and recovered.fields["node"] != doomed.node_id
    assert done.shards == 1


def test_a_killed_process_is_rebuilt_from_a_buddy_on_another_node(
    add_node: AddNode, tmp_path: Path
) -> None:
    add_node(), add_node()

    def killed(pool: RayPool) -> None:
        actor = pool._members[1].actor
        process = actor.__ray_call__.remote(lambda self: os.getpid())
        os.kill(ray.get(process), signal.SIGKILL)

    done = run(tmp_path, 13, killed, snapshots="buddies")
    assert done.kinds()[:2] == ["lost", "recovered"]


def test_a_node_that_joins_gets_a_shard(add_node: AddNode, tmp_path: Path) -> None:
    add_node()

    def noticed(pool: RayPool) -> bool:
        return pool._roster.nodes.slots() == 2

    def started(pool: RayPool) -> bool:
        (joining,) = pool._roster.joining
        return bool(pool._transport.wait([joining.ready], 0.1))

    def joined(pool: RayPool) -> None:
        add_node()

    done = run(tmp_path, 5, joined, until={6: noticed, 8: started})
    assert done.kinds() == ["joined", "moved"]
    assert done.shards == 2


def test_a_drained_node_is_evacuated_without_a_loss(
    cluster: Cluster, add_node: AddNode, tmp_path: Path
) -> None:
    _, leaving = add_node(), add_node()

    def drained(pool: RayPool) -> None:
        drain(cluster.address, leaving.node_id)

    def noticed(pool: RayPool) -> bool:
        return leaving.node_id in pool._roster.nodes.leaving

    done = run(tmp_path, 5, drained, until={8: noticed})
    assert done.kinds() == ["drained", "moved"]
    assert done.seen[0].fields["node"] == leaving.node_id
    assert done.shards == 1


def drain(address: str, node_id: str) -> None:
    """Announces, as a cloud does, that a node will be taken away."""
    told = subprocess.run(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
            *("--address", address, "--node-id", node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION"),
            *("--reason-message", "spot", "--deadline-remaining-seconds", "60"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert told.returncode == 0, told.stderr
