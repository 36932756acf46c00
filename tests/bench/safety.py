"""What it costs to be safe while nothing fails: steps with copies beside steps without.

Run by `make bench`. Two shards on two nodes, windows that take 0.1 s by sleeping (so
that a busy machine does not blur the ratio), states of 1, 10 and 100 MB a shard. Copies
are made in every other stretch of steps of the same run.
"""

import argparse
import dataclasses
import statistics
import time
from typing import Any, Literal

import numpy as np
from ray.cluster_utils import Cluster
from rich.console import Console
from rich.table import Table

from pes_cluster.cluster.pool import Lost
from pes_cluster.cluster.settings import ClusterSettings
from pes_cluster.cluster.snapshots import Snapshots
from pes_cluster.cluster.work import Work
from pes_cluster.core.blocks import BlockProgram, Report
from pes_cluster.ray_backend import session
from pes_cluster.ray_backend.pool import RayPool

WINDOW = 0.1  # Seconds.
MEGABYTE = 10**6

Keeper = Literal["driver", "buddies"]


@dataclasses.dataclass(frozen=True)
class Nothing:
    """A task whose theta is three numbers."""

    episode_length: int | None = None

    def initial_theta(self, key: Any) -> Any:
        del key
        return np.zeros(3, np.float32)


@dataclasses.dataclass(frozen=True)
class Ballast:
    """A method that waits, and whose blocks are as large as asked."""

    megabytes: float
    blocks: int = 2

    def build(self, task: Any, seed: int) -> BlockProgram:
        def init(theta: Any, index: Any) -> Any:
            floats = int(self.megabytes * MEGABYTE / 4)
            return {"ballast": np.ones(floats, np.float32), "step": np.int32(0)}

        def advance(theta: Any, block: Any, outer_step: Any) -> Any:
            time.sleep(WINDOW)
            block["ballast"][:8] += 1
            report = Report(
                gradient=np.zeros(3, np.float32),
                weight=np.float32(1),
                sums={"loss": np.float32(0)},
                counts={"inner_steps": np.int32(1)},
            )
            return block | {"step": np.int32(outer_step)}, report

        return BlockProgram(self.blocks, init, advance, jittable=False)


class Stretches(Snapshots):
    """Lets copies fall due in some stretches of steps, and in others not."""

    def __init__(self) -> None:
        super().__init__()
        self.safe, self.copies = True, 0

    def due(self, step_seconds: float, theta_bytes: int) -> bool:
        due = self.safe and super().due(step_seconds, theta_bytes)
        self.copies += due
        return due


def measure(megabytes: float, keeper: Keeper, stretches: int, steps: int) -> Any:
    """Returns (mean with copies, mean without, copies made)."""
    work = Work(Nothing(), Ballast(megabytes), 0)
    pool = RayPool(work, ClusterSettings(shards=2, snapshots=keeper))
    theta = work.initial_theta()
    seconds: dict[bool, list[float]] = {True: [], False: []}
    kept = pool._copies._kept = Stretches()
    try:
        assert pool.restore(None, 0) is None
        for step in range(2 * stretches * steps):
            kept.safe = step // steps % 2 == 0
            began = time.perf_counter()
            assert not isinstance(pool.step(step, theta), Lost)
            if step % steps:  # The first of a stretch may pay for the one before.
                seconds[kept.safe].append(time.perf_counter() - began)
    finally:
        pool.close()
    return statistics.mean(seconds[True]), statistics.mean(seconds[False]), kept.copies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1, 10, 100])
    parser.add_argument("--stretches", type=int, default=6)
    parser.add_argument("--steps", type=int, default=25)
    chosen = parser.parse_args()
    keepers: tuple[Keeper, ...] = ("driver", "buddies")
    table = Table("MB a shard", "kept by", "copies", "ms with", "ms without", "ratio")
    session._use_token()
    head = {"num_cpus": 0, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    store = {"object_store_memory": 1500 * MEGABYTE}
    nodes = [cluster.add_node(num_cpus=1, **store) for _ in range(2)]
    try:
        with session.connect(cluster.address):
            for size in chosen.sizes:
                for keeper in keepers:
                    safe, bare, copies = measure(
                        size, keeper, chosen.stretches, chosen.steps
                    )
                    row = (f"{size:g}", keeper, str(copies), f"{1000 * safe:.1f}")
                    ratio = f"{safe / bare:.3f}"
                    table.add_row(*row, f"{1000 * bare:.1f}", ratio)
    finally:
        for node in nodes:
            cluster.remove_node(node)
        cluster.shutdown()
    Console().print(table)


if __name__ == "__main__":
    main()
