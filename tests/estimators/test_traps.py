"""The mistakes seen in public implementations: each has a test that would see it here.

Some are below, the others where what they break is tested; `ELSEWHERE` says where.
"""

import dataclasses
import importlib
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core import keys
from pes_cluster.core.credit import telescope
from pes_cluster.core.perturbations import Perturbations
from pes_cluster.core.unroll import Unrolled
from pes_cluster.estimators.differentiation.tbptt import TBPTT
from pes_cluster.estimators.differentiation.uoro import UORO
from pes_cluster.estimators.evolution.fields import sigma_function
from pes_cluster.estimators.evolution.full_es import FullES
from pes_cluster.estimators.evolution.nres import NRES
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.truncated_es import TruncatedES
from pes_cluster.estimators.registry import ESTIMATORS

ROOT = pathlib.Path(__file__).parents[2]

ELSEWHERE = {
    "1 a counter that is never wrapped": [
        "estimators/test_power.py::test_a_known_mistake_is_seen",
        "estimators/test_power.py::test_ours_makes_none_of_them",
    ],
    "2 the terminal loss credited to the new episode": [
        "estimators/test_power.py::test_a_known_mistake_is_seen",
        "estimators/test_contract.py::test_signs_that_end_apart_against_loops",
    ],
    "4 old noise by today's sigma; one clock for all": [
        "estimators/test_sigma_power.py::test_old_noise_by_the_present_sigma_is_seen",
        "estimators/test_expectations.py::"
        "test_windows_of_an_episode_sum_to_the_exact_gradient",
        "estimators/test_data_and_shaping.py::test_staggered_starts_spread_the_phases",
    ],
    "5 shaping": [
        "estimators/test_shaped.py::"
        "test_what_shaping_cannot_see_is_not_in_the_estimate",
    ],
    "9 keys that perturbations and data share, or that differ by sign": [
        "estimators/test_data_and_shaping.py::test_streams_share_no_key",
        "estimators/test_data_and_shaping.py::test_who_shares_data",
    ],
    "10 pairs counted as particles; a sum divided by who did not answer": [
        "estimators/test_contract.py::test_contract",
        "cluster/test_elastic_pool.py::"
        "test_proceeding_counts_who_reported_and_takes_the_lost_back",
    ],
    "11 diverged pairs left out": [
        "estimators/test_divergence.py::"
        "test_capping_turns_away_from_the_cliff_and_leaving_out_does_not",
        "estimators/test_divergence.py::"
        "test_a_restarted_pair_begins_a_new_episode_with_a_new_accumulator",
    ],
    "12 a state restored without its accumulator": [
        "cluster/test_driver.py::"
        "test_a_resumed_run_has_the_bits_of_one_that_never_stopped",
        "estimators/test_contract.py::test_contract",
    ],
    "15 the final loss not telescoped": [
        "estimators/test_expectations.py::test_final_loss_by_telescoping",
    ],
    "16 PES+Analytic that counts the direct gradient twice": [
        "estimators/test_pes_analytic.py::"
        "test_the_mean_is_the_gradient_with_little_variance",
    ],
    "17 thetas mixed within a window": [
        "cluster/test_engine.py::"
        "test_every_window_is_at_the_theta_of_one_update_before",
    ],
    "18 what one pair sees depends on the others": [
        "estimators/test_scaling.py::test_the_others_keep_every_bit",
    ],
    "19 costs that are not charged": [
        "estimators/test_contract.py::test_contract",
    ],
}


@pytest.mark.parametrize("trap", ELSEWHERE)
def test_the_tests_elsewhere_exist(trap: str) -> None:
    for place in ELSEWHERE[trap]:
        file, _, name = place.partition("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(), place


def test_every_trap_is_listed() -> None:
    numbers = {int(trap.split()[0]) for trap in ELSEWHERE}
    here = pathlib.Path(__file__).read_text()
    numbers |= {n for n in range(1, 20) if f"\ndef test_trap_{n}_" in here}
    assert numbers == set(range(1, 20))


@dataclasses.dataclass(frozen=True)
class Sloped:
    """Each step loses ``slope . theta``; it has no number after the last step.

    An estimate is the episode's slope times the mean of z z^T, whatever sigma is.
    """

    episode_length: int = 10
    terminates: bool = False
    ends_at: int = 10
    dtype: Any = jnp.float32
    shift: float = 0.0

    def initial_theta(self, key: Any) -> Any:
        return jnp.full(2, self.shift, self.dtype)

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.int32(0)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        slope = jnp.array([1.0, -2.0], self.dtype)
        loss = jnp.where(state < self.episode_length, slope @ theta, jnp.nan)
        after = state + 1
        if self.terminates:
            return after, loss, after >= self.ends_at
        return after, loss


def reports(es: Any, task: Any, windows: int) -> tuple[Any, list[Any]]:
    program, theta = es.build(task, 5), task.initial_theta(None)
    advance, block, seen = jax.jit(program.advance), program.init(theta, 0), []
    for step in range(windows):
        block, report = advance(theta, block, np.int32(step))
        seen.append(report)
    return block, seen


def test_trap_3_steps_weigh_the_same_however_many_a_window_has() -> None:
    """One step of ten counts a tenth; none counts twice and none divides by zero."""
    long = Sloped(terminates=True, ends_at=10)
    short = dataclasses.replace(long, ends_at=1)
    es = FullES(20, 0.3, pairs_per_block=10)
    ten, one = (reports(es, task, 1)[1][0].gradient for task in (long, short))
    np.testing.assert_allclose(ten, 10 * one, rtol=1e-5)


def test_trap_5_nothing_is_shaped_by_default() -> None:
    for place in ESTIMATORS.values():
        module, _, name = place.partition(":")
        fields = dataclasses.fields(getattr(importlib.import_module(module), name))
        shaping = [field.default for field in fields if field.name == "shaping"]
        assert shaping in ([], [None]), name


@dataclasses.dataclass(frozen=True)
class Leaky:
    episode_length: int = 8

    def initial_theta(self, key: Any) -> Any:
        return jnp.array([0.4])

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.ones(3)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        state = jnp.tanh(jnp.array([0.9, 0.7, -0.8]) * jnp.roll(state, 1) + theta[0])
        return state, 1000 * jnp.sum(state**2)


def test_trap_6_the_mean_state_saw_no_perturbation() -> None:
    block, _ = reports(TruncatedES(2, 2, 0.5), Leaky(), 3)
    replicas, _ = reports(TBPTT(2), Leaky(), 3)
    np.testing.assert_array_equal(block.trajectories.state, replicas.trajectories.state)


@pytest.mark.parametrize("kind", [FullES, pytest.param(PES, marks=pytest.mark.slow)])
def test_trap_7_the_scale_is_that_of_the_gradient(kind: Any) -> None:
    """The same for any sigma, which a factor of 1 / (2 sigma) would leave in it."""
    length = {} if kind is FullES else {"truncation_length": 10}
    seen = []
    for sigma in (0.1, 1.0):
        es = kind(num_particles=20, sigma=sigma, pairs_per_block=10, **length)
        report = reports(es, Sloped(), 1)[1][0]
        seen.append(report.gradient / report.weight)
    np.testing.assert_allclose(*seen, rtol=1e-4)
    names = jnp.zeros((10, 1, 2), jnp.int32)
    noise = Perturbations(5, sigma_function(1.0))
    z = np.asarray(noise.sample(jnp.arange(10), names, jnp.zeros(2)))[:, 0]
    expected = z.T @ z @ np.array([10.0, -20.0]) / 10
    np.testing.assert_allclose(seen[0], expected, rtol=1e-4)


def test_trap_8_uoro_needs_no_step_that_vanishes_in_float32() -> None:
    """Against its recursion in float64, with Jacobians by hand."""
    windows = 6
    _, seen = reports(UORO(1), Leaky(), windows)
    s, theta, factors = np.ones(3), 0.4, (np.zeros(3), 0.0)
    weights = np.array([0.9, 0.7, -0.8])
    for step in range(windows):
        s = np.tanh(weights * np.roll(s, 1) + theta)
        slope = 1 - s**2
        jacobian = slope[:, None] * weights[:, None] * np.roll(np.eye(3), 1, axis=0)
        direct, into = 2000 * s @ slope, 2000 * s @ jacobian
        expected = direct + into @ factors[0] * factors[1]
        np.testing.assert_allclose(seen[step].gradient, expected, rtol=2e-4)
        name = keys.folded(keys.stream(5, keys.NOISE), 0, step)
        name = jax.random.fold_in(name, 0)
        nu = np.asarray(jax.random.rademacher(name, (1, 3), jnp.float32), float)[0]
        a, b = jacobian @ factors[0], nu @ slope
        r0 = np.sqrt((abs(factors[1]) + 1e-7) / (np.linalg.norm(a) + 1e-7))
        r1 = np.sqrt((abs(b) + 1e-7) / (np.linalg.norm(nu) + 1e-7))
        factors = r0 * a + r1 * nu, factors[1] / r0 + b / r1


@pytest.mark.parametrize("kind", [PES, pytest.param(NRES, marks=pytest.mark.slow)])
def test_trap_13_perturbations_are_never_recovered_from_theta(kind: Any) -> None:
    """At a theta that swallows them, and at one of bfloat16, credit is what it was."""
    es = kind(4, 5, 0.01, pairs_per_block=2)
    plain, _ = reports(es, Sloped(), 2)
    for task in (Sloped(shift=1e6), Sloped(dtype=jnp.bfloat16, shift=1.0)):
        block, seen = reports(es, task, 2)
        rule = es.generalized().windows(task, 5).rule
        kept, same = (
            rule.directions(b.pair_id, task.initial_theta(None), b.credit)
            for b in (block, plain)
        )
        assert kept.dtype == jnp.float32
        np.testing.assert_array_equal(kept, same)
        assert seen[0].gradient.dtype == task.dtype


@pytest.mark.parametrize("kind", [PES, NRES])
def test_trap_14_no_step_is_made_beyond_the_episode(kind: Any) -> None:
    """T = 10, K = 4: a step after the tenth would have no number."""
    _, seen = reports(kind(4, 4, 0.3), Sloped(), 5)
    assert sum(int(report.counts["nonfinite"]) for report in seen) == 0


def test_trap_15_increments_add_up_to_each_episodes_final_loss() -> None:
    """Two windows of three steps; an episode ends with the first's second step."""
    ended = jnp.array([[[False, True, False]], [[False, False, False]]])
    first = Unrolled(jnp.array([[[9.0, 5, 2]], [[9.0, 9, 4]]]), ended)
    start = jnp.array([[3.0], [0.0]])
    seen, last = telescope(first, start)
    np.testing.assert_array_equal(seen.losses, [[[0, 2, 2]], [[0, 0, 4]]])
    np.testing.assert_array_equal(last, [[2], [4]])
    then = Unrolled(jnp.array([[[0.0, 0, 7]], [[0.0, 0, 1]]]), ended & False)
    seen, last = telescope(then, last)
    np.testing.assert_array_equal(seen.losses[..., -1], [[5], [-3]])


@pytest.mark.statistical
def test_trap_16_the_direct_gradient_counted_twice_is_seen(test_seed: int) -> None:
    """s <- 0.9 s + theta, s^2 / 2 after each of four windows of one step."""
    pairs, sigma, theta = 40_000, 0.5, 0.4
    random, scores = np.random.default_rng(test_seed), {}
    s, mean, exact, influence = np.ones((2, pairs)), 1.0, 0.0, 0.0
    xi, right, wrong = np.zeros(pairs), np.zeros(pairs), np.zeros(pairs)
    for _ in range(4):
        eps = sigma * random.normal(size=pairs)
        s = 0.9 * s + theta + np.array([[1.0], [-1.0]]) * eps
        mean, influence = 0.9 * mean + theta, 0.9 * influence + 1
        exact += mean * influence
        losses = (s[0] ** 2 - s[1] ** 2) / (4 * sigma**2)
        right += mean + xi * (losses - eps * mean / sigma**2)
        xi = xi + eps
        wrong += mean + xi * losses
    for name, samples in (("right", right), ("wrong", wrong)):
        error = samples.std() / np.sqrt(pairs)
        scores[name] = (samples.mean() - exact) / error
    print(f"PES+Analytic: z {scores['right']:.1f}, counted twice {scores['wrong']:.0f}")
    assert abs(scores["right"]) < 5
    assert abs(scores["wrong"]) > 8
