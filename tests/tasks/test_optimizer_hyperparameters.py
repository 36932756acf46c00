"""Any optax optimiser inside a task: its arithmetic is optax's own."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pes_cluster.core.task import TaskError
from pes_cluster.tasks.image_classification import cross_entropy
from pes_cluster.tasks.mlp_learning_rate_schedule import MLPLearningRateSchedule
from pes_cluster.tasks.optimizer_hyperparameters import OptimizerHyperparameters
from pes_cluster.tasks.schedules import Hyperparameter

KEY = jax.random.key(0)
START = jax.random.key(1)
STEPS = jax.random.split(jax.random.key(2), 3)
SIZE = {"hidden": (), "batch_size": 6, "episode_length": 20}  # One affine layer.
ADAM = OptimizerHyperparameters(
    **SIZE,
    optimizer="adam",
    learn=(
        Hyperparameter("learning_rate", 0.1, schedule="piecewise"),
        Hyperparameter("b1", 0.8),
        Hyperparameter("eps", 1e-3),
    ),
    fixed={"b2": 0.99},
)


@functools.partial(jax.jit, static_argnums=0)
def unrolled(step, state):
    """Three steps, ``(state, key) -> (state, loss)`` each."""
    return jax.lax.scan(step, state, STEPS)


def run(task, theta=None):
    theta = task.initial_theta(KEY) if theta is None else theta
    state = task.init(theta, START)
    return unrolled(lambda state, key: task.step(theta, state, key), state)


@pytest.mark.slow
def test_sgd_on_an_inverse_time_schedule_is_the_papers_task():
    paper = MLPLearningRateSchedule(
        **SIZE, initial_learning_rate=0.2, initial_decay=3, weight_decay=0.0
    )
    learned = Hyperparameter(
        "learning_rate", 0.2, schedule="inverse_time", initial_decay=3
    )
    task = OptimizerHyperparameters(**SIZE, learn=(learned,), fixed={"momentum": 0.9})
    np.testing.assert_allclose(run(task)[1], run(paper)[1], rtol=1e-5)


def reference(state, key):
    """optax with injected hyperparameters, the rate falling from 0.1 to 0.02."""
    layers, memory, t = state
    memory.hyperparams["learning_rate"] = 0.1 * (0.02 / 0.1) ** (t / 19)
    train_key, _ = jax.random.split(key)
    batch = ADAM.minibatch(train_key, validation=False)
    gradient = jax.grad(cross_entropy)(layers, *batch)
    updates, memory = INJECTED.update(gradient, memory, layers)
    return (optax.apply_updates(layers, updates), memory, t + 1), None


INJECTED = optax.inject_hyperparams(optax.adam)(
    learning_rate=0.0, b1=0.8, b2=0.99, eps=1e-3
)


@pytest.mark.parametrize(
    "per", [pytest.param("network", marks=pytest.mark.slow), "tensor"]
)
def test_steps_are_those_of_optax_with_injected_hyperparameters(per):
    """Equal numbers in all groups are one for the network."""
    task = dataclasses.replace(ADAM, per=per)
    theta = task.initial_theta(KEY)
    rates = jnp.log(jnp.float32([0.1, 0.02]))
    shape = theta["learning_rate"]["value"].shape
    theta["learning_rate"]["value"] = jnp.broadcast_to(rates, shape)
    layers = task.network(START)
    start = layers, INJECTED.init(layers), jnp.float32(0)
    (expected, _, _), _ = unrolled(reference, start)
    state, _ = run(task, theta)
    for found, leaf in zip(
        jax.tree.leaves(state.layers), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(found, leaf, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("per", "groups"), [("layer", 3), ("tensor", 6)])
def test_theta_has_a_number_for_each_group(per, groups):
    task = dataclasses.replace(ADAM, per=per, hidden=(5, 4))
    theta = task.initial_theta(KEY)
    assert theta["b1"]["value"].shape == (groups,)
    assert theta["learning_rate"]["value"].shape == (groups, 2)
    assert len(jax.eval_shape(task.init, theta, KEY).memory) == groups


def test_a_group_whose_rate_is_nothing_stays_as_it_was():
    learned = (Hyperparameter("learning_rate", 0.1),)
    task = OptimizerHyperparameters(**SIZE, learn=learned, per="tensor")
    theta = {"learning_rate": {"value": jnp.array([-jnp.inf, -2.0])}}
    state, _ = run(task, theta)
    (weight, bias), *_ = task.network(START)
    assert (state.layers[0].weight == weight).all()
    assert (state.layers[0].bias != bias).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adamm"}, "optimizer must be the name of a function of optax"),
        ({"optimizer": "apply_updates"}, "learn must be of arguments of optax.apply"),
        ({"learn": ()}, "learn must be at least one argument"),
        ({"fixed": {"b1": 0.9}}, "learn must be .* and not in fixed"),
        (
            {"fixed": {"b9": 0.9}},
            "fixed must be of arguments of optax.adam .learning_r",
        ),
        (
            {"learn": (Hyperparameter("b1", 0.9),)},
            "optimizer must be built by learn and fixed alone .*learning_rate",
        ),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(changes, message):
    with pytest.raises(TaskError, match=f"^optimizer_hyperparameters: {message}") as e:
        dataclasses.replace(ADAM, **changes)
    assert "\n" not in str(e.value)
