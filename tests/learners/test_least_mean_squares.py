"""The learner's error falls as its formula says."""

import jax
import numpy as np
import pytest

from pes_cluster.learners.least_mean_squares import LeastMeanSquares


@pytest.mark.statistical
def test_the_error_falls_as_the_formula(test_seed: int) -> None:
    """E[error_t^2 / |w*|^2] = (1 - 2 lr + (d + 2) lr^2)^t, within 5 standard errors."""
    rate, dimension = 0.05, 4
    learner = LeastMeanSquares(10_000, dimension, rate, steps_per_report=1)
    program = learner.build(None, test_seed)
    assert program.num_blocks * 16 >= 10_000 > (program.num_blocks - 1) * 16
    blocks = program.num_blocks
    learners = jax.vmap(lambda index: program.init((), index))(np.arange(blocks))
    advance = jax.jit(
        jax.vmap(lambda block: program.advance((), block, 0)[0], in_axes=0)
    )
    start = np.sum(np.square(np.asarray(learners.target)), axis=-1)
    factor = 1 - 2 * rate + (dimension + 2) * rate**2
    for t in range(1, 31):
        learners = advance(learners)
        if t % 10:
            continue
        off = np.asarray(learners.target - learners.weights)
        ratio = (np.sum(np.square(off), axis=-1) / start).ravel()
        error = ratio.std() / np.sqrt(ratio.size)
        z = (ratio.mean() - factor**t) / error
        without = (ratio.mean() - (1 - 2 * rate) ** t) / error
        print(f"t {t}: {ratio.mean():.4f}, z {z:.1f}; without lr^2 {without:.1f}")
        assert abs(z) < 5
    assert abs(without) > 8


def test_padding_is_inert() -> None:
    program = LeastMeanSquares(num_seeds=10, steps_per_report=3).build(None, 0)
    reports = [
        program.advance((), program.init((), index), 0)[1]
        for index in range(program.num_blocks)
    ]
    assert sum(float(report.weight) for report in reports) == 10
    assert sum(int(report.counts["inner_steps"]) for report in reports) == 30
    assert all(report.gradient is None for report in reports)
