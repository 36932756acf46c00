"""The penalty's closed form, and where short and long views of it come to rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.task import TaskError, check_task
from pes_cluster.tasks.ridge_regression import RidgeRegression

KEY = jax.random.key(0)
TASK = RidgeRegression()
GRID = np.linspace(-5, 6, 1101)


def ridge(theta):
    """w and its validation loss, by numpy's least squares on an augmented system."""
    x, y, valid_x, valid_y = TASK.rows()
    rows = np.concatenate([x, np.exp(theta / 2) * np.eye(6)])
    w = np.linalg.lstsq(rows, np.concatenate([y, np.zeros(6)]), rcond=None)[0]
    return w, 0.5 * np.sum((valid_x @ w - valid_y) ** 2)


def test_the_data_are_standard_and_split_four_to_one():
    x, y, valid_x, valid_y = TASK.rows()
    assert (x.shape, valid_x.shape) == ((246, 6), (62, 6))
    for part in (np.concatenate([x, valid_x]), np.concatenate([y, valid_y])):
        np.testing.assert_allclose(part.mean(0), 0, atol=1e-12)
        np.testing.assert_allclose(part.std(0), 1, rtol=1e-12)


def test_descent_settles_at_the_ridge_solution():
    with jax.enable_x64(True):
        for theta in (-1.0, 2.95, 5.0):
            expected, loss = ridge(theta)
            np.testing.assert_allclose(TASK.solution(jnp.float64(theta)), expected)
            assert TASK.evaluate(jnp.float64(theta), KEY) == pytest.approx(loss)

        @jax.jit
        def settled(theta):
            step = lambda w, _: TASK.step(theta, w, KEY)  # noqa: E731
            return jax.lax.scan(step, TASK.init(theta, KEY), length=20_000)

        w, losses = settled(jnp.float64(2.0))
        expected, loss = ridge(2.0)
        np.testing.assert_allclose(w, expected, rtol=1e-8)
        assert losses[-1] == pytest.approx(loss, rel=1e-8)
        # The first step, by hand.
        x, y, valid_x, valid_y = TASK.rows()
        first = 1e-3 * x.T @ y
        expected = 0.5 * np.sum((valid_x @ first - valid_y) ** 2)
        assert losses[0] == pytest.approx(expected)


def test_the_best_theta_lies_inside_and_one_step_does_not_see_it():
    solved = [ridge(theta) for theta in GRID]
    losses = [loss for _, loss in solved]
    assert GRID[np.argmin(losses)] == pytest.approx(2.95, abs=0.005)
    assert min(losses) < min(losses[0], losses[-1]) - 0.5
    # What one step sees of theta, where descent has settled: -lr lambda w . g.
    _, _, valid_x, valid_y = TASK.rows()
    seen = np.array([-w @ valid_x.T @ (valid_x @ w - valid_y) for w, _ in solved])
    (place,) = np.nonzero(np.diff(np.sign(seen)))[0]
    assert GRID[place] == pytest.approx(1.14, abs=0.015)


def test_theta_follows_the_float_mode():
    check_task(TASK)
    with jax.enable_x64(True):
        check_task(TASK)
        assert TASK.initial_theta(KEY).dtype == jnp.float64


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_rows": 4}, "needs at least 5 rows and 1 feature"),
        ({"noise": 0.0}, "noise must be positive, not 0.0"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(changes, message):
    with pytest.raises(TaskError, match=f"^ridge_regression: {message}"):
        RidgeRegression(**changes)
