"""OpenAI ES and ARS against plain loops, and what their shaping does."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.perturbations import Perturbations
from pes_cluster.estimators.evolution.ars import ARS
from pes_cluster.estimators.evolution.fields import sigma_function
from pes_cluster.estimators.evolution.openai_es import OpenAIES
from pes_cluster.estimators.evolution.shaping import BestDirections, Shaping

PAIRS, SIGMA, SEED, STEP = 7, 0.3, 4, 3
THETA = np.array([0.4, -0.2, 0.1], np.float32)


@dataclasses.dataclass(frozen=True)
class Bowl:
    """Two steps of one half of ``scale (|theta - 1|^2 + sin(theta_0))``."""

    scale: float = 1.0
    episode_length: int = 2

    def initial_theta(self, key: Any) -> Any:
        return jnp.asarray(THETA)

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.float32(0)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        loss = 0.5 * self.scale * (jnp.sum((theta - 1) ** 2) + jnp.sin(theta[0]))
        return state, loss


def gradient(es: Any, task: Any, step: int = STEP) -> np.ndarray:
    """As the driver forms it: all scores, weights, sums in block order, over N."""
    program = es.build(task, SEED)
    scored = program.scored
    assert scored is not None
    traces = []

    def traced(block: Any) -> Any:
        traces.append(1)
        return scored.score(THETA, block, step)

    score, total = jax.jit(traced), jax.jit(partial(scored.weighted_sum, THETA))
    seen = [score(program.init(THETA, index)) for index in range(program.num_blocks)]
    assert len(traces) == 1
    weights = scored.shape(
        np.concatenate([scores for _, scores, _ in seen]),
        np.concatenate([block.active for block, _, _ in seen]),
    )
    parts = np.split(weights, len(seen))
    sums = [total(block, part) for (block, _, _), part in zip(seen, parts, strict=True)]
    return np.sum(sums, axis=0) / sum(float(report.weight) for _, _, report in seen)


def directions() -> tuple[np.ndarray, np.ndarray]:
    """z of each pair, and the losses of both signs, in plain numpy."""
    names = jnp.broadcast_to(jnp.array([STEP, 0]), (PAIRS, 1, 2))
    noise = Perturbations(SEED, sigma_function(SIGMA))
    z = np.asarray(noise.sample(jnp.arange(PAIRS), names, jnp.asarray(THETA)))[:, 0]
    losses = np.zeros((PAIRS, 2))
    for pair in range(PAIRS):
        for member, sign in enumerate((1, -1)):
            theta = THETA + np.float32(sign * SIGMA) * z[pair]
            losses[pair, member] = np.sum((theta - 1) ** 2) + np.sin(theta[0])
    return z, losses


def test_openai_es_is_algorithm_2_with_ranks() -> None:
    z, losses = directions()
    ranks = losses.ravel().argsort().argsort() / (2 * PAIRS - 1) - 0.5
    ranks = ranks.reshape(PAIRS, 2)
    expected = (ranks[:, 0] - ranks[:, 1]) @ z / (2 * PAIRS)
    es = OpenAIES(2 * PAIRS, SIGMA, pairs_per_block=2)
    np.testing.assert_allclose(gradient(es, Bowl()), expected, rtol=1e-4)


@pytest.mark.parametrize("top", [None, 3, 1])
def test_ars_is_algorithm_1(top: int | None) -> None:
    z, losses = directions()
    best = sorted(range(PAIRS), key=lambda pair: min(losses[pair]))[: top or PAIRS]
    used = losses[best]
    expected = (used[:, 0] - used[:, 1]) @ z[best] / (len(best) * used.std())
    es = ARS(2 * PAIRS, SIGMA, pairs_per_block=2, top_directions=top)
    np.testing.assert_allclose(gradient(es, Bowl()), expected, rtol=1e-4)


def test_ars_with_one_direction_only_sees_the_sign() -> None:
    """Whatever the slope: a step of twice the direction's length."""
    names = jnp.array([[[STEP, 0]]])
    noise = Perturbations(SEED, sigma_function(SIGMA))
    z = np.asarray(noise.sample(jnp.arange(1), names, jnp.asarray(THETA)))[0, 0]
    for scale in (1.0, 100.0):
        step = gradient(ARS(2, SIGMA), Bowl(scale))
        np.testing.assert_allclose(np.abs(step), 2 * np.abs(z), rtol=1e-3)


def test_what_shaping_cannot_see_is_not_in_the_estimate() -> None:
    """Ranks see no monotone change of the loss, a deviation no scale: both biased."""
    _, losses = directions()
    active = np.ones(PAIRS, bool)
    ranked, best = Shaping("centered_ranks"), BestDirections(PAIRS)
    seen = ranked.weights(losses, active)
    np.testing.assert_array_equal(ranked.weights(np.exp(losses), active), seen)
    np.testing.assert_allclose(
        best.weights(10 * losses, active), best.weights(losses, active)
    )


def test_pairs_without_a_number_are_not_among_the_best() -> None:
    scores = np.array([[3.0, 1.0], [-np.inf, 0.0], [2.0, 5.0], [0.0, 0.5]])
    active = np.array([True, True, True, False])
    weights = BestDirections(1).weights(scores, active)
    np.testing.assert_allclose(weights, [[4 * 3, 4 * 1], [0, 0], [0, 0], [0, 0]])
    np.testing.assert_array_equal(
        BestDirections(1).weights(scores[:2], active[1:3] & False), 0
    )


@pytest.mark.parametrize("top", [0, 8])
def test_an_impossible_number_of_directions_is_refused(top: int) -> None:
    with pytest.raises(ValueError, match=f"top_directions: {top} must lie between 1"):
        ARS(2 * PAIRS, SIGMA, top_directions=top)
    with pytest.raises(ValueError, match="top_directions: 5 must lie"):
        ARS(2 * PAIRS, SIGMA, top_directions=5).scaled(8)
