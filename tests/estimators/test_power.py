"""The mistakes of known implementations, emulated: each must fail where ours passes.

s_t = 0.9 s_{t-1} + theta, loss s_t^2 / 2, T = 10, K = 4: five windows hold two
episodes.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.estimators.evolution.nres import NRES
from pes_cluster.estimators.evolution.pes import PES

pytestmark = [pytest.mark.statistical, pytest.mark.slow]
PAIRS, T, K, SIGMA, THETA = 40_000, 10, 4, 0.5, 0.4
WINDOWS, EPISODES = 5, 2


@dataclasses.dataclass(frozen=True)
class Leaky:
    episode_length: int = T

    def initial_theta(self, key: Any) -> Any:
        return jnp.array([THETA])

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.float32(1)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        state = 0.9 * state + theta[0]
        return state, 0.5 * state**2


def _exact() -> float:
    """EPISODES times the gradient of one episode, by the chain rule."""
    s, influence, total = 1.0, 0.0, 0.0
    for _ in range(T):
        s, influence = 0.9 * s + THETA, 0.9 * influence + 1
        total += s * influence
    return EPISODES * total


def _z(samples: np.ndarray) -> float:
    error = samples.std() / np.sqrt(len(samples))
    return float((samples.mean() - _exact()) / error)


def _emulated(variant: str, seed: int) -> np.ndarray:
    """One estimate for each pair, loop by loop over steps."""
    random = np.random.default_rng(seed)
    total, xi, eps = np.zeros(PAIRS), np.zeros(PAIRS), np.zeros(PAIRS)
    s, clock, restarted = np.ones((2, PAIRS)), 0, True
    signs = np.array([[1.0], [-1.0]])
    for _ in range(WINDOWS):
        if variant != "nres at window starts" or restarted:
            eps = SIGMA * random.normal(size=PAIRS)
            restarted = False
        xi = xi + eps
        old = xi
        for _ in range(K):
            s = 0.9 * s + THETA + signs * eps
            clock += 1
            credit = old
            if clock == T and variant == "terminal loss to the new episode":
                credit = eps
            if variant == "nres at window starts":
                credit = eps
            total += credit * (0.5 * s[0] ** 2 - 0.5 * s[1] ** 2)
            if clock == T:
                s, clock, restarted, old = np.ones((2, PAIRS)), 0, True, eps
        xi = old
        if variant == "xi cleared at the window's end" and restarted:
            xi, restarted = np.zeros(PAIRS), False
        if variant == "counter never wrapped":
            xi = np.zeros(PAIRS)
    return total / (2 * SIGMA**2)


@pytest.mark.parametrize(
    "variant",
    [
        "nres at window starts",
        "terminal loss to the new episode",
        "xi cleared at the window's end",
        "counter never wrapped",
    ],
)
def test_a_known_mistake_is_seen(variant: str, test_seed: int) -> None:
    z = _z(_emulated(variant, test_seed))
    print(f"{variant}: z {z:.0f}")
    assert abs(z) > 8


def test_the_emulation_without_a_mistake_is_exact(test_seed: int) -> None:
    z = _z(_emulated("none", test_seed))
    print(f"emulation of the rule: z {z:.1f}")
    assert abs(z) < 5


@pytest.mark.parametrize(
    "es", [PES(2, K, SIGMA), NRES(2, K, SIGMA)], ids=["pes", "nres"]
)
def test_ours_makes_none_of_them(es: Any, test_seed: int) -> None:
    es = dataclasses.replace(es, num_particles=2 * PAIRS, pairs_per_block=1)
    task = Leaky()
    program, theta = es.build(task, test_seed), task.initial_theta(None)

    def pair(index: jax.Array) -> jax.Array:
        def window(block: Any, step: jax.Array) -> tuple[Any, jax.Array]:
            block, report = program.advance(theta, block, step)
            return block, report.gradient / report.weight

        steps = jnp.arange(WINDOWS)
        return jnp.sum(jax.lax.scan(window, program.init(theta, index), steps)[1])

    z = _z(np.asarray(jax.jit(jax.vmap(pair))(jnp.arange(PAIRS)), np.float64))
    print(f"{type(es).__name__}: z {z:.1f}")
    assert abs(z) < 5
