"""Episodes of generated lengths, members ending apart, against plain loops."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pes_cluster.estimators.evolution.gpes import GPES
from pes_cluster.estimators.evolution.nres import NRES
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.truncated_es import TruncatedES
from tests.helpers.numpy_reference import (
    LIMIT,
    ROWS,
    SIGMA,
    GeneratedLengths,
    Reference,
)

PAIRS, WINDOWS, SEED, K = 3, 8, 5, 4
COMMON = dict(
    num_particles=2 * PAIRS, truncation_length=K, sigma=SIGMA, pairs_per_block=PAIRS
)
CASES: dict[str, tuple[Any, str | int, bool]] = {
    "pes": (PES(**COMMON), "pes", True),
    "nres": (NRES(**COMMON), LIMIT, False),
    "gpes_3": (GPES(**COMMON, noise_period=3), 3, True),
    "truncated_es": (TruncatedES(**COMMON), "truncated_es", False),
}


def _runner(es: Any) -> Callable[[Any], np.ndarray]:
    program = es.build(GeneratedLengths(), SEED)

    @jax.jit
    def run(theta: Any) -> Any:
        def window(block: Any, step: Any) -> Any:
            block, report = program.advance(theta, block, step)
            return block, jnp.concatenate(report.gradient)

        return jax.lax.scan(window, program.init(theta, 0), jnp.arange(WINDOWS))[1]

    return lambda theta: np.asarray(run(theta))


@pytest.mark.parametrize("name", CASES)
def test_against_loops(name: str) -> None:
    es, rule, accumulate = CASES[name]
    reference = Reference(rule, accumulate, K, PAIRS, WINDOWS, SEED)
    draws, rows, run = reference.draws(), reference.rows(), _runner(es)

    @settings(max_examples=20, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.integers(1, LIMIT), min_size=ROWS, max_size=ROWS))
    def compare(lengths: list[int]) -> None:
        theta = jnp.array([0.3, 0.1]), jnp.array(lengths, jnp.float32)
        flat = np.concatenate([np.asarray(leaf) for leaf in theta])
        expected = reference.gradients(flat, draws, rows)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(run(theta), expected, rtol=1e-3, atol=1e-5 * scale)

    compare()
