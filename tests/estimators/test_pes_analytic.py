"""PES+Analytic: exact where one window is the episode, unbiased, of little variance."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.task import TaskError
from pes_cluster.estimators.differentiation.bptt import BPTT
from pes_cluster.estimators.differentiation.tbptt import TBPTT
from pes_cluster.estimators.evolution.pes import PES
from pes_cluster.estimators.evolution.pes_analytic import PESAnalytic
from tests.helpers.quadratic import Quadratic, estimates, gradient, t2

THETA = np.array([0.2, -0.1], np.float32)


@dataclasses.dataclass(frozen=True)
class Noisy:
    """Not quadratic, with data in every step; no number once it has left +-limit."""

    limit: float = np.inf
    host: bool = False
    episode_length: int | None = 6

    def initial_theta(self, key: Any) -> Any:
        return jnp.asarray(THETA)

    def init(self, theta: Any, key: Any) -> Any:
        return jax.random.normal(key, ())

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        state = jnp.tanh(0.9 * state + theta[0] * jax.random.normal(key, ()) + theta[1])
        return state, jnp.where(jnp.abs(state) > self.limit, jnp.nan, state**3)


def run(es: Any, task: Any, windows: int, theta: Any = THETA) -> Any:
    """Block 0 after the windows, with the reports."""
    program = es.build(task, 1)
    advance, block, reports = jax.jit(program.advance), program.init(theta, 0), []
    for step in range(windows):
        block, report = advance(theta, block, np.int32(step))
        reports.append(report)
    return block, reports


def test_over_a_whole_episode_it_is_bptt() -> None:
    """Nothing came before, so nothing is estimated."""
    _, ours = run(PESAnalytic(2, 6, 0.3), Noisy(), 2)
    _, exact = run(BPTT(), Noisy(), 2)  # The same id: the same data.
    for one, other in zip(ours, exact, strict=True):
        np.testing.assert_allclose(one.gradient / 2, other.gradient, rtol=1e-4)


@pytest.mark.parametrize("start", ["lockstep", "staggered"])
@pytest.mark.slow
def test_the_mean_state_sees_the_data_of_its_pair(start: Any) -> None:
    es = PESAnalytic(6, 2, 0.3, pairs_per_block=3, start=start)
    block, _ = run(es, Noisy(), 4)
    np.testing.assert_array_equal(
        block.mean.inner_step, block.trajectories.inner_step[:, :1]
    )
    if start == "lockstep":
        replicas, _ = run(TBPTT(2), Noisy(), 4)
        expected = replicas.trajectories.state
        np.testing.assert_allclose(block.mean.state[:1], expected, rtol=1e-5)


@pytest.mark.slow
def test_one_mean_state_stands_for_pairs_that_see_the_same() -> None:
    """A policy that may restart one pair alone keeps a mean state for each."""
    es = PESAnalytic(6, 2, 0.3, data="run", pairs_per_block=3)
    each = dataclasses.replace(es, divergence="restart_pair")
    (one, ours), (many, theirs) = run(es, Noisy(), 5), run(each, Noisy(), 5)
    assert one.mean.state.shape == (1, 1) and many.mean.state.shape == (3, 1)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.gradient, b.gradient, rtol=1e-3, atol=1e-5)
    assert [int(r.counts["inner_steps"]) for r in (ours[0], theirs[0])] == [14, 18]


@pytest.mark.slow
def test_a_mean_state_that_diverges_takes_its_pair_along() -> None:
    """Its gradient is no number; the pair counts nothing, and both begin anew."""
    es = PESAnalytic(60, 2, 0.3, divergence="restart_pair", pairs_per_block=30)
    block, reports = run(es, Noisy(limit=0.8), 3)
    assert int(reports[0].counts["diverged_pairs"]) > 3
    for report in reports:
        diverged = int(report.counts["diverged_pairs"])
        assert float(report.weight) == 60 - 2 * diverged > 0
        assert np.all(np.isfinite(report.gradient)) and np.isfinite(report.sums["loss"])
    np.testing.assert_array_equal(
        block.mean.inner_step, block.trajectories.inner_step[:, :1]
    )


@pytest.mark.statistical
def test_the_mean_is_the_gradient_with_little_variance(test_seed: int) -> None:
    """The variance is a small part of PES's (685 of 20910 on another such system)."""
    task = Quadratic()
    samples = estimates(PESAnalytic(2, 3, 0.5), task, 0, 4, test_seed)
    exact, truncated = t2(samples, gradient(task, None)), t2(samples, gradient(task, 3))
    other = estimates(PES(2, 3, 0.5), task, 0, 4, test_seed)
    ratio = np.trace(np.cov(samples.T)) / np.trace(np.cov(other.T))
    print(f"T2 exact {exact:.1f}, truncated {truncated:.0f}; of PES's var {ratio:.3f}")
    assert exact < 30
    assert truncated > 100
    assert ratio < 0.2


@pytest.mark.slow
@pytest.mark.statistical
@pytest.mark.parametrize("start", ["lockstep", "staggered"])
def test_episodes_that_end_inside_a_window(start: Any, test_seed: int) -> None:
    """T = 12, K = 5: twelve windows hold five whole episodes of whatever phase."""
    task = Quadratic()
    samples = estimates(PESAnalytic(2, 5, 0.5, start=start), task, 12, 12, test_seed)
    exact = t2(samples, 5 * gradient(task, None))
    truncated = t2(samples, 5 * gradient(task, 3))
    print(f"T2 exact {exact:.1f}, truncated {truncated:.0f}")
    assert exact < 30
    assert truncated > 100


@dataclasses.dataclass(frozen=True)
class Terminating(Noisy):
    terminates: bool = True

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        state, loss = super().step(theta, state, key)
        return state, loss, state > 0.9


@pytest.mark.parametrize(
    ("es", "task", "line"),
    [
        (PESAnalytic(4, 4, 0.3), Terminating(), "would not keep step with its pair"),
        (PESAnalytic(4, 2, 0.3), Noisy(host=True), "cannot be differentiated"),
        (PESAnalytic(4, 2, 0.3, data="run", grown_from=8), Noisy(), "cannot change"),
    ],
)
def test_what_is_refused(es: Any, task: Any, line: str) -> None:
    with pytest.raises((ValueError, TaskError), match=line):
        es.build(task, 0)


def test_a_final_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="objective: pes_analytic"):
        PESAnalytic(4, 2, 0.3, objective="final")
