"""Hyperparameters in theta: their scales and their courses over time."""

import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.task import TaskError
from pes_cluster.tasks.schedules import Hyperparameter, constrained, unconstrained

LENGTH = 11


def at(hyperparameter, step, entry=None, shape=()):
    entry = hyperparameter.initial_entry(shape) if entry is None else entry
    return np.asarray(hyperparameter.at(entry, jnp.int32(step), LENGTH))


@pytest.mark.parametrize(
    ("scale", "value", "expected"),
    [("log", 0.1, np.log(0.1)), ("logit", 0.9, np.log(9)), ("linear", -3.0, -3.0)],
)
def test_scales_and_their_inverses(scale, value, expected):
    assert unconstrained(value, scale) == pytest.approx(expected)
    assert constrained(jnp.float32(expected), scale) == pytest.approx(value)


@pytest.mark.parametrize("schedule", ["constant", "inverse_time", "piecewise"])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_schedule_starts_at_its_initial_value(schedule, shape):
    learned = Hyperparameter("learning_rate", 0.02, schedule=schedule)
    first = at(learned, 0, shape=shape)
    assert first.shape == shape
    np.testing.assert_allclose(first, 0.02, rtol=1e-6)


def test_inverse_time_decay():
    learned = Hyperparameter(
        "learning_rate", 0.2, schedule="inverse_time", initial_decay=3, decay_steps=5
    )
    for step in range(LENGTH):
        expected = 0.2 / (1 + step / 5) ** 3
        assert at(learned, step) == pytest.approx(expected, rel=1e-5)
    # Without decay_steps the time scale is the episode.
    learned = Hyperparameter("learning_rate", 0.2, schedule="inverse_time")
    assert at(learned, 4) == pytest.approx(0.2 / (1 + 4 / LENGTH), rel=1e-5)


def test_piecewise_is_linear_between_knots_of_each_group():
    learned = Hyperparameter("b1", 0.5, scale="linear", schedule="piecewise", knots=3)
    assert learned.initial_entry((2,))["value"].shape == (2, 3)
    knots = np.array([[0.0, 1.0, 4.0], [2.0, 2.0, -2.0]], np.float32)
    found = np.array([at(learned, t, {"value": knots}) for t in range(LENGTH + 2)])
    steps = np.minimum(np.arange(LENGTH + 2), LENGTH - 1)
    for group in range(2):
        expected = np.interp(steps, [0, 5, 10], knots[group])
        np.testing.assert_allclose(found[:, group], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "clip"}, "scale: clip has no usual one; give log, logit or linear"),
        ({"name": "b1", "initial": 1.0}, "initial: b1 must lie between 0 and 1, not"),
        ({"name": "eps", "initial": 0.0}, "initial: eps must lie between 0 and inf"),
        ({"name": "b1", "schedule": "inverse_time"}, "schedule: inverse_time needs"),
        ({"name": "eps", "knots": 1}, "knots: 1 must be at least 2"),
        ({"name": "eps", "decay_steps": 0}, "decay_steps: 0 must be positive"),
        ({"name": "eps", "initial_decay": 0}, "initial_decay: 0 must be positive"),
    ],
)
def test_what_does_not_fit_is_one_line(fields, message):
    with pytest.raises(TaskError, match=message):
        Hyperparameter(**{"initial": 0.5} | fields)
