"""What an inner step costs under each estimator, and what is kept for a particle.

Run by ``python -m tests.bench.estimators``. An MLP's training on digits (two layers of
32, batches of 32), K = 10 and blocks of 16 particles, beside PES; by this process's CPU
seconds, the least of 20 rounds.
"""

import dataclasses
import importlib
import time

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from pes_cluster.cluster.leaves import to_arrays
from pes_cluster.core.compile import compiled
from pes_cluster.estimators.registry import ESTIMATORS
from pes_cluster.tasks.mlp_learning_rate_schedule import MLPLearningRateSchedule

TASK = MLPLearningRateSchedule(hidden=(32, 32), episode_length=50, batch_size=32)
FIELDS = {
    "num_particles": 128,
    "truncation_length": 10,
    "sigma": 0.1,
    "noise_period": 10,
    "pairs_per_block": 8,
    "ranges": {"log_learning_rate": (-6.0, 0.0), "log_decay": (-1.0, 2.0)},
}
ROUNDS, WINDOWS = 20, 5
PARTICLES = 16  # Of a block, whatever the estimator.


def main() -> None:
    """Measures all of them and prints a table."""
    seen = {name: measured(name) for name in ESTIMATORS}
    table = Table("estimator", "inner step / PES", "kept / PES")
    for name, (seconds, kept) in seen.items():
        ratios = seconds / seen["pes"][0], kept / seen["pes"][1]
        table.add_row(name, *(f"{ratio:.2f}" for ratio in ratios))
    Console().print(table)


def measured(name: str) -> tuple[float, float]:
    """CPU seconds of an inner step, and bytes kept for a particle between windows."""
    module, _, attribute = ESTIMATORS[name].partition(":")
    cls = getattr(importlib.import_module(module), attribute)
    known = {field.name for field in dataclasses.fields(cls)}
    recipe = cls(**{key: value for key, value in FIELDS.items() if key in known})
    program, theta = recipe.build(TASK, 0), TASK.initial_theta(jax.random.key(0))
    block = program.init(theta, 0)
    advance = compiled(program.advance, theta, block, np.int32(0))
    seconds, step = [], 0
    for _ in range(ROUNDS):
        begun, steps = time.process_time(), 0
        for _ in range(WINDOWS):
            block, report = advance(theta, block, np.int32(step))
            steps, step = steps + int(report.counts["inner_steps"]), step + 1
        seconds.append((time.process_time() - begun) / steps)
    kept = sum(leaf.nbytes for leaf in to_arrays(block).values())
    return min(seconds), kept / PARTICLES


if __name__ == "__main__":
    main()
