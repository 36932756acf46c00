"""Every estimator against its exact expectation, and a biased one that must fail.

Tolerances are Hotelling's T2 of many independent pairs: chi2 with 3 degrees of freedom
at the exact gradient (30 leaves p = 1.4e-6), far above 100 at a wrong one.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.estimators.evolution.fields import ExponentialDecay
from pes_cluster.estimators.evolution.full_es import FullES
from pes_cluster.estimators.evolution.gpes import GPES
from pes_cluster.estimators.evolution.nres import NRES
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.truncated_es import TruncatedES
from tests.helpers.quadratic import PAIRS, THETA, Quadratic, estimates, gradient, t2

pytestmark = pytest.mark.statistical


@pytest.mark.parametrize(
    "es",
    [
        PES(2, 3, 0.5),
        NRES(2, 3, 0.5),
        GPES(2, 3, 0.5, noise_period=2),
        GPES(2, 3, 0.5, noise_period=5),
        PES(2, 3, ExponentialDecay(0.5, 0.8)),
    ],
    ids=["pes", "nres", "gpes_2", "gpes_5", "pes_sigma_schedule"],
)
def test_windows_of_an_episode_sum_to_the_exact_gradient(
    es: Any, test_seed: int
) -> None:
    task = Quadratic()
    samples = estimates(es, task, 0, 4, test_seed)
    exact = t2(samples, gradient(task, None))
    truncated = t2(samples, gradient(task, 3))
    print(f"{type(es).__name__}: T2 exact {exact:.1f}, truncated {truncated:.0f}")
    assert exact < 30
    assert truncated > 100


def test_truncated_es_estimates_the_truncated_gradient(test_seed: int) -> None:
    """The power check: the biased one fails the test that the others pass."""
    task = Quadratic()
    samples = estimates(TruncatedES(2, 3, 0.5), task, 0, 4, test_seed)
    exact = t2(samples, gradient(task, None))
    truncated = t2(samples, gradient(task, 3))
    print(f"TruncatedES: T2 exact {exact:.0f}, truncated {truncated:.1f}")
    assert truncated < 30
    assert exact > 100


@pytest.mark.slow
@pytest.mark.parametrize(
    "es",
    [
        PES(2, 5, 0.5),
        NRES(2, 5, 0.5),
        GPES(2, 5, 0.5, noise_period=4),
        PES(2, 5, 0.5, start="staggered"),
        NRES(2, 5, 0.5, start="staggered"),
    ],
    ids=["pes", "nres", "gpes", "pes_staggered", "nres_staggered"],
)
def test_episodes_that_end_inside_a_window(es: Any, test_seed: int) -> None:
    """T = 12, K = 5: twelve windows hold five whole episodes of whatever phase."""
    task = Quadratic()
    windows = 12
    samples = estimates(es, task, 12, windows, test_seed)
    exact = t2(samples, 5 * gradient(task, None))
    wrong = t2(samples, 5 * gradient(task, 3))
    print(f"{type(es).__name__}: T2 exact {exact:.1f}, truncated {wrong:.0f}")
    assert exact < 30
    assert wrong > 100


def _joined(window: int | None) -> np.ndarray:
    """Of four windows of pairs that join: the end of one episode, and the next."""
    pairs = np.arange(PAIRS, dtype=np.float32)
    cut = np.floor(4 * np.mod(pairs * np.float32(0.6180339887), 1))
    total, lengths = np.zeros(3), {0: np.zeros(3)}
    for windows in range(1, 5):
        lengths[windows] = gradient(Quadratic(3 * windows), window)
    for first, share in enumerate(np.bincount(cut.astype(int)) / PAIRS):
        total += share * (lengths[4 - first] + lengths[first])
    return total


@pytest.mark.parametrize("es", [PES(2, 3, 0.5), NRES(2, 3, 0.5)], ids=["pes", "nres"])
def test_pairs_that_join_are_right_from_their_first_window(
    es: Any, test_seed: int
) -> None:
    es = dataclasses.replace(es, grown_from=2)
    samples = estimates(es, Quadratic(), 0, 4, test_seed)
    exact, truncated = t2(samples, _joined(None)), t2(samples, _joined(3))
    in_step = t2(samples, gradient(Quadratic(), None))
    print(f"joined: T2 {exact:.1f}, truncated {truncated:.0f}, in step {in_step:.0f}")
    assert exact < 30
    assert truncated > 100
    assert in_step > 100


@pytest.mark.slow
@pytest.mark.parametrize("es", [PES(2, 3, 0.5), PES(2, 5, 0.5)], ids=["k3", "k5"])
def test_final_loss_by_telescoping(es: Any, test_seed: int) -> None:
    task = Quadratic()
    windows = 4 if es.truncation_length == 3 else 12
    episodes = 1 if windows == 4 else 5
    es = dataclasses.replace(es, objective="final")
    samples = estimates(es, task, 0 if windows == 4 else 12, windows, test_seed)
    exact = t2(samples, episodes * gradient(task, None, final=True))
    summed = t2(samples, episodes * gradient(task, None))
    print(f"final loss: T2 exact {exact:.1f}, summed objective {summed:.0f}")
    assert exact < 30
    assert summed > 100


@dataclasses.dataclass(frozen=True)
class Cubic:
    """(sum_k theta_k)^3 over three windows: its moments tell PES from NRES."""

    episode_length: int = 3

    def initial_theta(self, key: Any) -> jax.Array:
        return jnp.array([0.5])

    def init(self, theta: jax.Array, key: Any) -> jax.Array:
        return jnp.zeros(2)

    def step(self, theta: jax.Array, state: jax.Array, key: Any) -> Any:
        total, steps = state[0] + theta[0], state[1] + 1
        return jnp.stack([total, steps]), jnp.where(steps == 3, total**3, 0.0)


@pytest.mark.parametrize(
    ("es", "mean", "other"),
    [
        # 3n((n theta)^2 + n sigma^2) and 3n^3(theta^2 + sigma^2), n = 3.
        (PES(2, 1, 0.4), 24.57, 33.21),
        (NRES(2, 1, 0.4), 33.21, 24.57),
        (GPES(2, 1, 0.4, noise_period=1), 24.57, 33.21),
        (FullES(2, 0.4), 33.21, 24.57),
    ],
    ids=["pes", "nres", "gpes", "full_es"],
)
def test_cubic_moments(es: Any, mean: float, other: float, test_seed: int) -> None:
    windows = 1 if isinstance(es, FullES) else 3
    samples = estimates(es, Cubic(), 0, windows, test_seed)
    error = samples.std() / np.sqrt(len(samples))
    z = (samples.mean() - mean) / error
    print(f"{type(es).__name__}: {samples.mean():.2f} +- {error:.2f}, z {z:.1f}")
    assert abs(z) < 5
    assert abs(samples.mean() - other) / error > 8


def _gradients(es: Any, windows: int) -> list[np.ndarray]:
    task = Quadratic()
    program = es.build(task, 7)
    block, seen = program.init(THETA, 0), []
    advance = jax.jit(program.advance)
    for step in range(windows):
        block, report = advance(THETA, block, step)
        seen.append(np.asarray(report.gradient))
    return seen


def test_identities() -> None:
    """K = T: PES, NRES and full ES are one; GPES has PES and NRES at its ends."""
    whole = [_gradients(es, 2) for es in (PES(20, 12, 0.5), NRES(20, 12, 0.5))]
    whole.append(_gradients(FullES(20, 0.5), 2))
    np.testing.assert_array_equal(whole[0], whole[1])
    np.testing.assert_array_equal(whole[0], whole[2])
    pes, gpes = PES(20, 3, 0.5), GPES(20, 3, 0.5, noise_period=3)
    np.testing.assert_array_equal(_gradients(pes, 6), _gradients(gpes, 6))
    nres, long = NRES(20, 5, 0.5), GPES(20, 5, 0.5, noise_period=12)
    np.testing.assert_allclose(_gradients(nres, 6), _gradients(long, 6), rtol=1e-4)
