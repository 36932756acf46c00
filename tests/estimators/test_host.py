"""A host task in numpy gives what the same task gives in JAX."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from pes_cluster.estimators.evolution.gpes import GPES
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.truncated_es import TruncatedES


@dataclasses.dataclass(frozen=True)
class Drift:
    """Written for both: only operators, no library calls on traced values."""

    host: bool = False
    episode_length: int = 5

    def initial_theta(self, key: Any) -> Any:
        return np.array([0.3, -0.2], np.float32)

    def init(self, theta: Any, key: Any) -> Any:
        return theta[0] * np.ones(1, np.float32)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        state = (0.8 * state + theta[1] * state * state + theta[0]).astype(np.float32)
        return state, state[0] * state[0]

    def final_loss(self, theta: Any, state: Any, key: Any) -> Any:
        return (state[0] - 1.0) * (state[0] - 1.0)


def _gradients(es: Any, task: Drift) -> np.ndarray:
    program = es.build(task, 2)
    assert program.jittable is not task.host
    theta, seen = task.initial_theta(None), []
    advance = program.advance if task.host else jax.jit(program.advance)
    block = program.init(theta, 0)
    for step in range(4):
        block, report = advance(theta, block, np.int32(step))
        seen.append(np.asarray(report.gradient))
    return np.array(seen)


@pytest.mark.parametrize(
    "es",
    [
        PES(4, 3, 0.1, pairs_per_block=2),
        PES(4, 3, 0.1, objective="final", pairs_per_block=2),
        GPES(4, 3, 0.1, noise_period=2, pairs_per_block=2),
        TruncatedES(4, 3, 0.1, pairs_per_block=2),
    ],
    ids=["pes", "final", "gpes", "truncated_es"],
)
def test_host_and_jax_agree(es: Any) -> None:
    """T = 5, K = 3: episodes end inside windows and at their last step."""
    ours, theirs = (_gradients(es, Drift(host=host)) for host in (True, False))
    assert np.all(np.abs(theirs).max(axis=1) > 0.01)
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)
