"""RTRL is exact; UORO and forward gradients are right on average; TBPTT is not."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.task import TaskError
from pes_cluster.estimators.differentiation.bptt import BPTT
from pes_cluster.estimators.differentiation.forward_gradient import ForwardGradient
from pes_cluster.estimators.differentiation.rtrl import RTRL
from pes_cluster.estimators.differentiation.tbptt import TBPTT
from pes_cluster.estimators.differentiation.uoro import UORO
from pes_cluster.tasks.influence_balancing import InfluenceBalancing
from tests.helpers.quadratic import THETA, Quadratic, gradient, t2

REPLICAS = 40_000
WEIGHTS = {
    "w": 0.4 * np.random.default_rng(1).normal(size=(3, 3)),
    "start": np.array([0.3, -0.5, 0.2]),
}


@dataclasses.dataclass(frozen=True)
class Recurrent:
    """A tanh network; theta also gives its first state; counters and keys within."""

    episode_length: int = 6
    by_itself: bool = False

    @property
    def terminates(self) -> bool:
        return self.by_itself

    def initial_theta(self, key: Any) -> Any:
        return jax.tree.map(jnp.asarray, WEIGHTS)

    def init(self, theta: Any, key: Any) -> Any:
        return {"h": jnp.sin(theta["start"]), "step": jnp.int32(0), "key": key}

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        own, step = jax.random.fold_in(state["key"], 1), state["step"] + 1
        seen = jax.random.normal(own, (3,), theta["w"].dtype)
        h = jnp.tanh(theta["w"] @ state["h"] + seen)
        loss = jnp.sum(h**3) + theta["start"][0] * h[1]
        after = {"h": h, "step": step, "key": own}
        # Every episode is two steps shorter than the clock allows.
        return (after, loss, step == 4) if self.by_itself else (after, loss)


def summed(es: Any, task: Any, windows: int, seed: int = 2) -> np.ndarray:
    """The windows' gradients, flat, added up over blocks and windows."""
    program, theta = es.build(task, seed), task.initial_theta(jax.random.key(0))
    advance, total = jax.jit(program.advance), 0.0
    for index in range(program.num_blocks):
        block = program.init(theta, index)
        for step in range(windows):
            block, report = advance(theta, block, np.int32(step))
            leaves = jax.tree.leaves(report.gradient)
            total += np.concatenate([np.ravel(leaf) for leaf in leaves])
    return np.asarray(total)


@pytest.mark.parametrize(
    ("length", "windows", "episodes"),
    [
        pytest.param(6, 2, 2, marks=pytest.mark.slow),
        pytest.param(3, 4, 2, marks=pytest.mark.slow),
        pytest.param(1, 6, 1, marks=pytest.mark.slow),
        (4, 3, 2),
    ],
    ids=["whole", "windows", "steps", "resets inside"],
)
def test_rtrl_sums_to_bptt(length: int, windows: int, episodes: int) -> None:
    """In float64: two replicas, each with data of its own."""
    with jax.enable_x64(True):
        exact = summed(BPTT(2), Recurrent(), episodes)
        carried = summed(RTRL(length, 2), Recurrent(), windows)
        np.testing.assert_allclose(carried, exact, rtol=1e-12)
        if 1 < length < 6:
            truncated = summed(TBPTT(length, 2), Recurrent(), windows)
            assert not np.allclose(truncated, exact, rtol=1e-2)


@pytest.mark.slow
def test_rtrl_follows_episodes_that_end_by_themselves() -> None:
    """Four steps long, in windows of three."""
    with jax.enable_x64(True):
        exact = summed(TBPTT(4), Recurrent(4), 3)
        carried = summed(RTRL(3), Recurrent(by_itself=True), 4)
        np.testing.assert_allclose(carried, exact, rtol=1e-12)


@pytest.mark.slow
def test_uoro_over_a_whole_episode_is_bptt() -> None:
    """Nothing is carried, so nothing is estimated; the second episode shows it."""
    with jax.enable_x64(True):
        exact, carried = (summed(es(2), Recurrent(), 2) for es in (BPTT, _whole_uoro))
        np.testing.assert_allclose(carried, exact, rtol=1e-12)


def _whole_uoro(num_particles: int) -> UORO:
    return UORO(6, num_particles)


def estimates(
    es: Any, task: Any, windows: int, seed: int, replicas: int = REPLICAS
) -> np.ndarray:
    """Each replica's estimate at fixed theta, added over the windows."""
    program, theta = es.build(task, seed), task.initial_theta(jax.random.key(0))

    def replica(index: jax.Array) -> jax.Array:
        def window(block: Any, step: jax.Array) -> tuple[Any, jax.Array]:
            block, report = program.advance(theta, block, step)
            return block, report.gradient

        block = dataclasses.replace(program.init(theta, 0), replica_id=index[None])
        return jnp.sum(jax.lax.scan(window, block, jnp.arange(windows))[1], axis=0)

    return np.asarray(jax.jit(jax.vmap(replica))(jnp.arange(replicas)), np.float64)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("es", "windows", "episodes"),
    [
        (UORO(3), 4, 1),
        pytest.param(UORO(1), 12, 1, marks=pytest.mark.slow),
        (ForwardGradient(3), 4, 1),
        pytest.param(UORO(5), 12, 5, marks=pytest.mark.slow),
        pytest.param(ForwardGradient(5), 12, 5, marks=pytest.mark.slow),
    ],
    ids=["uoro", "uoro_steps", "forward", "uoro_resets", "forward_resets"],
)
def test_the_mean_is_the_gradient(
    es: Any, windows: int, episodes: int, test_seed: int
) -> None:
    task = Quadratic()
    # Step by step UORO's variance is large: it takes more to see a bias.
    replicas = REPLICAS * (8 if es == UORO(1) else 1)
    samples = estimates(es, task, windows, test_seed, replicas)
    exact = t2(samples, episodes * gradient(task, None))
    truncated = t2(samples, episodes * gradient(task, es.truncation_length))
    print(f"{type(es).__name__}: T2 exact {exact:.1f}, truncated {truncated:.0f}")
    assert exact < 30
    assert truncated > 100


@pytest.mark.statistical
def test_uoro_with_factors_that_do_not_balance_is_seen(
    test_seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power check: th~ too short by 0.7, as if its ratio were another's."""
    from pes_cluster.estimators.differentiation import uoro

    right: Callable[..., Any] = uoro._next

    def wrong(old: Any, forward: Any, backward: Any, signs: Any) -> Any:
        after = right(old, forward, backward, signs)
        return dataclasses.replace(
            after, theta=jax.tree.map(lambda x: 0.7 * x, after.theta)
        )

    monkeypatch.setattr(uoro, "_next", wrong)
    task = Quadratic()
    off = t2(estimates(UORO(3), task, 4, test_seed), gradient(task, None))
    print(f"UORO with factors that do not balance: T2 exact {off:.0f}")
    assert off > 100


@pytest.mark.statistical
@pytest.mark.slow
def test_the_variance_of_a_forward_gradient(test_seed: int) -> None:
    """(P + 1) |g|^2 for one direction, within 5 standard errors (kurtosis included)."""
    task, exact = Quadratic(), gradient(Quadratic(), None)
    samples = estimates(ForwardGradient(3), task, 4, test_seed)
    squares = np.sum((samples - exact) ** 2, axis=1)
    error = squares.std() / np.sqrt(len(squares))
    expected = (len(THETA) + 1) * np.sum(exact**2)
    print(f"variance {squares.mean():.4g} +- {error:.2g}, expected {expected:.4g}")
    assert abs(squares.mean() - expected) < 5 * error


@dataclasses.dataclass(frozen=True)
class Counter(Recurrent):
    """Nothing in its state can be differentiated."""

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.int32(0)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        return state + 1, jnp.sum(theta["start"] ** 2) * state


def test_states_without_floats() -> None:
    exact, carried = (summed(es, Counter(), 2) for es in (BPTT(), RTRL(6)))
    np.testing.assert_allclose(carried, exact, rtol=1e-6)
    with pytest.raises(TaskError, match="Counter has no floating state"):
        summed(UORO(), Counter(), 1)


def test_a_direction_needs_an_end() -> None:
    with pytest.raises(TaskError, match="never ends .* choose rtrl or uoro"):
        ForwardGradient().build(InfluenceBalancing(), 0)
