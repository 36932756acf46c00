"""The closed form of influence balancing, and that short windows mislead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.evaluation import evaluator
from pes_cluster.core.task import TaskError, check_task
from pes_cluster.tasks.influence_balancing import InfluenceBalancing

KEY = jax.random.key(0)
TASK = InfluenceBalancing()


@pytest.mark.parametrize("theta", [0.5, -1.0, 0.0, 0.2])
def test_loss_at_the_fixed_point_is_a_parabola(theta):
    loss = evaluator(TASK)(jnp.float32(theta), KEY)
    assert loss == pytest.approx(0.5 * (6 * theta + 1) ** 2, rel=1e-4)


def test_minimum_is_at_minus_one_sixth():
    assert TASK.evaluate(jnp.float32(-1 / 6), KEY) < 1e-11


def test_step_is_the_matrix_recursion():
    signs = np.array([1.0] * 10 + [-1.0] * 13)
    matrix = 0.5 * np.eye(23) + 0.5 * np.eye(23, k=1)
    state, s = TASK.init(jnp.float32(0.3), KEY), np.ones(23)
    for _ in range(30):
        state, loss = TASK.step(jnp.float32(0.3), state, KEY)
        s = matrix @ s + 0.3 * signs
        np.testing.assert_allclose(state, s, rtol=1e-5)
        assert loss == pytest.approx(0.5 * (s[0] - 1) ** 2, rel=1e-4, abs=1e-10)


def after(theta, state, steps):
    def advance(carry, _):
        return TASK.step(theta, carry, KEY)

    return jax.lax.scan(advance, state, length=steps)[1][-1]


@pytest.mark.parametrize(("steps", "sign"), [(1, -1), (5, -1), (10, -1), (100, 1)])
def test_gradient_of_a_short_window_has_the_wrong_sign(steps, sign):
    """At theta = 0.5 the loss rises with theta: windows of at most 10 steps deny it."""
    theta = jnp.float32(0.5)
    state = jax.lax.fori_loop(
        0, 500, lambda _, s: TASK.step(theta, s, KEY)[0], TASK.init(theta, KEY)
    )
    gradient = jax.jit(jax.grad(after), static_argnums=2)(theta, state, steps)
    assert np.sign(gradient) == sign


def test_theta_is_a_scalar_and_episodes_never_end():
    assert TASK.initial_theta(KEY).shape == ()
    assert TASK.episode_length is None
    check_task(TASK)
    with jax.enable_x64(True):
        check_task(TASK)


def test_more_positive_units_than_units_is_refused():
    with pytest.raises(TaskError, match=r"num_positive must lie between 0 and .*\(5\)"):
        InfluenceBalancing(num_units=5, num_positive=6)
