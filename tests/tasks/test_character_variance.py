"""The variance of PES against the number of windows, on the character model.

Vicol et al., ICML 2021: with windows whose gradients agree (one symbol repeated) it
falls to a half and stays there, with windows whose gradients do not (random symbols) it
grows with their number; with one window it is that of ES, (P + 1) |g|^2 a pair.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.evaluation import evaluator
from pes_cluster.estimators.evolution.es_single import ESSingle
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.tasks.character_model import CharacterModel

LENGTH, PAIRS, BLOCK = 64, 2048, 16
KEY = jax.random.key(5)

pytestmark = [pytest.mark.nightly, pytest.mark.statistical, pytest.mark.timeout(1200)]


def variances(text: str, estimator: type, windows: int) -> tuple[float, int]:
    """tr Var of one pair's estimate over an episode, over |g|^2 exact; and P."""
    task = CharacterModel(text=text, episode_length=LENGTH, place="first")
    theta = task.initial_theta(KEY)
    exact = jax.grad(evaluator(task))(theta, KEY)
    recipe = estimator(
        num_particles=2 * PAIRS,
        truncation_length=LENGTH // windows,
        sigma=1e-3,
        pairs_per_block=BLOCK,
    )
    program = recipe.build(task, 0)

    @jax.jit
    def episode(index):
        def window(block, outer_step):
            block, report = program.advance(theta, block, outer_step)
            return block, jax.tree.map(lambda x: x / report.weight, report.gradient)

        start = program.init(theta, index)
        _, gradients = jax.lax.scan(window, start, jnp.arange(windows))
        return jax.tree.map(lambda x: jnp.sum(x, 0), gradients)

    errors = []
    for index in range(program.num_blocks):
        off = jax.tree.map(lambda a, b: np.sum((a - b) ** 2), episode(index), exact)
        errors.append(sum(map(float, jax.tree.leaves(off))))
    squares = jax.tree.map(lambda g: float(np.sum(g**2)), exact)
    size = sum(x.size for x in jax.tree.leaves(theta))
    return np.mean(errors) * BLOCK / sum(jax.tree.leaves(squares)), size


def test_variance_against_the_number_of_windows():
    with jax.enable_x64(True):
        found = {
            (text, windows): variances(text, PES, windows)
            for text in ("random", "repeat")
            for windows in (1, 8, 64)
        }
        single, _ = variances("random", ESSingle, 8)
    for name, (variance, size) in found.items():
        print(f"{name}: variance of a pair {variance:.1f}, P + 1 = {size + 1}")
    print(f"es_single, random, 8 windows: {single:.1f}")
    # Its square norm is |g|^2 (P + 1) chi^2_1 or so: 2 relative variances a pair.
    tolerance = 5 * np.sqrt(2 / PAIRS)
    for text in ("random", "repeat"):
        variance, size = found[text, 1]
        assert variance == pytest.approx(size + 1, rel=tolerance)
    assert single == pytest.approx(size + 1, rel=tolerance)
    ratio = {name: value[0] / found[name[0], 1][0] for name, value in found.items()}
    assert 0.4 < ratio["repeat", 64] < 0.6
    assert ratio["repeat", 64] < ratio["repeat", 8] < 1
    assert ratio["random", 64] > 2 * ratio["random", 8] > 2
