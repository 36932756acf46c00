"""The Lorenz task against numpy, and that its loss is what makes it hard."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.evaluation import evaluator
from pes_cluster.core.task import TaskError, check_task
from pes_cluster.tasks.lorenz import Lorenz

KEY = jax.random.key(0)
TRUTH = np.log([10.0, 28.0])


def euler(theta, steps):
    """z after each step."""
    (a, r), (x, y, z), heights = np.exp(theta), (1.2, 1.3, 1.6), []
    for _ in range(steps):
        slopes = a * (y - x), x * (r - z) - y, x * y - 8 / 3 * z
        x, y, z = (p + 0.005 * s for p, s in zip((x, y, z), slopes, strict=True))
        heights.append(z)
    return np.array(heights)


def test_the_loss_is_the_squared_error_of_z():
    task = Lorenz(episode_length=300)
    theta = task.initial_theta(KEY)
    np.testing.assert_allclose(theta, [3.116, 3.7], rtol=1e-6)
    with jax.enable_x64(True):
        theta = np.array([3.116, 3.7])
        expected = np.sum((euler(theta, 300) - euler(TRUTH, 300)) ** 2)
        assert evaluator(task)(theta, KEY) == pytest.approx(expected, rel=1e-9)
        assert evaluator(task)(TRUTH, KEY) < 1e-15


def test_chaos_makes_derivatives_explode_while_the_loss_stays_bounded():
    loss = jax.jit(jax.vmap(jax.value_and_grad(evaluator(Lorenz())), (0, None)))
    near = jnp.array([3.116, 3.7]) + 0.01 * jax.random.normal(KEY, (8, 2))
    with jax.enable_x64(True):
        losses, slopes = map(np.asarray, loss(near.astype(float), KEY))
    assert losses.max() < 2000 * 60**2  # z stays between 0 and 60.
    assert losses.min() > 2000
    # To believe it, a thousandth of theta would undo all of the loss.
    assert np.abs(slopes).max() > 1e3 * losses.max()


def test_theta_follows_the_float_mode():
    check_task(Lorenz())
    with jax.enable_x64(True):
        check_task(Lorenz())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"initial": (1.0,)}, "initial must be two numbers"),
        ({"time_step": 0.0}, "time_step must be positive, not 0.0"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(changes, message):
    with pytest.raises(TaskError, match=f"^lorenz: {message}"):
        Lorenz(**changes)
