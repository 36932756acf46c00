"""29 hyperparameters: their numbers, their masks, and their refusal of gradients."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.task import TaskError
from pes_cluster.estimators.differentiation.tbptt import TBPTT
from pes_cluster.models import mlp
from pes_cluster.tasks.image_classification import cross_entropy
from pes_cluster.tasks.mlp_hyperparameters import MLPHyperparameters

KEY = jax.random.key(0)
TASK = MLPHyperparameters(hidden=(4, 3), batch_size=6, episode_length=20)


def logit(share):
    return np.log(share / (1 - share))


def test_the_papers_theta_has_29_numbers_within_its_ranges():
    theta = MLPHyperparameters(hidden=(100,) * 5).initial_theta(KEY)
    assert sum(x.size for x in jax.tree.leaves(theta)) == 29
    for name, low, high in (
        ("units", logit(0.2), logit(0.8)),
        ("log_learning_rate", np.log(1e-4), np.log(1e-2)),
        ("logit_momentum", logit(0.01), logit(0.9)),
    ):
        values = np.asarray(theta[name])
        assert (values >= low - 1e-5).all()
        assert (values <= high + 1e-5).all()
        assert len(set(values.tolist())) == len(values)
    other = MLPHyperparameters().initial_theta(jax.random.key(1))
    assert (other["units"] != theta["units"]).all()


def test_the_number_of_units_is_a_floor():
    task = dataclasses.replace(TASK, hidden=(100, 100, 100))
    theta = {"units": logit(np.array([0.2051, 0.999, 0.001]))}
    assert task.units(theta).tolist() == [20, 99, 0]
    masks = task.masks(theta)
    assert [int(m.sum()) for m in masks] == [20, 99, 0]
    assert (masks[0][:20] == 1).all()


def test_masked_units_are_as_if_they_were_not_there():
    draw = np.random.default_rng(0).normal
    sizes = ((5, 4), (4, 3), (3, 10))
    layers = [mlp.Layer(draw(size=size), draw(size=size[1])) for size in sizes]
    inputs = draw(size=(7, 5))
    masks = [np.array([1.0, 1, 0, 0]), np.array([1.0, 0, 0])]
    (w0, b0), (w1, b1), (w2, b2) = layers
    fewer = [
        mlp.Layer(w0[:, :2], b0[:2]),
        mlp.Layer(w1[:2, :1], b1[:1]),
        mlp.Layer(w2[:1], b2),
    ]
    np.testing.assert_allclose(
        mlp.apply(layers, inputs, masks), mlp.apply(fewer, inputs), rtol=1e-5, atol=1e-6
    )


@pytest.mark.slow
def test_each_tensor_takes_its_own_rate_and_momentum():
    """Two steps against loops; the loss is that of a fresh validation minibatch."""
    rates = np.array([0.3, 0.1, 0.2, 0.05, 0.4, 0.15], np.float32)
    momenta = np.array([0.9, 0.5, 0.1, 0.7, 0.3, 0.2], np.float32)
    theta = {
        "units": logit(np.array([0.8, 0.7])),  # 3 of 4 and 2 of 3 units.
        "log_learning_rate": np.log(rates),
        "logit_momentum": logit(momenta),
    }

    def two_steps(theta, keys):
        state = TASK.init(theta, KEY)
        return jax.lax.scan(lambda s, key: TASK.step(theta, s, key), state, keys)

    keys = jax.random.split(KEY, 2)
    state, losses = jax.jit(two_steps)(theta, keys)
    masks = [np.array([1.0, 1, 1, 0]), np.array([1.0, 1, 0])]
    layers = TASK.network(KEY)
    structure = jax.tree.structure(layers)
    buffers = [np.zeros(w.shape) for w in jax.tree.leaves(layers)]

    @jax.jit
    def gradient_of(layers, key):
        batch = TASK.minibatch(jax.random.split(key)[0], validation=False)
        return jax.grad(cross_entropy)(layers, *batch, masks)

    @jax.jit
    def loss_of(layers, key):
        batch = TASK.minibatch(jax.random.split(key)[1], validation=True)
        return cross_entropy(layers, *batch, masks)

    for index, key in enumerate(keys):
        gradient = jax.tree.leaves(gradient_of(layers, key))
        buffers = [
            m * b + g for m, b, g in zip(momenta, buffers, gradient, strict=True)
        ]
        leaves = jax.tree.leaves(layers)
        moved = [w - r * b for r, b, w in zip(rates, buffers, leaves, strict=True)]
        layers = jax.tree.unflatten(structure, [jnp.float32(w) for w in moved])
        assert losses[index] == pytest.approx(float(loss_of(layers, key)), rel=1e-4)
    # A unit that is left out never moves.
    assert (state.layers[0].weight[:, 3] == TASK.network(KEY)[0].weight[:, 3]).all()


def test_differentiating_estimators_refuse_it():
    with pytest.raises(TaskError, match="derivatives say nothing about theta"):
        TBPTT(truncation_length=5).build(TASK, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": ()}, "hidden must be at least one number of units"),
        ({"initial_units": (0.5, 1.0)}, "initial_units must be two rising numbers be"),
        ({"initial_momentum": (0.5, 0.1)}, "initial_momentum must be two rising numb"),
        ({"initial_learning_rate": (0.0, 1.0)}, "initial_learning_rate must be two r"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(changes, message):
    with pytest.raises(TaskError, match=f"^mlp_hyperparameters: {message}"):
        MLPHyperparameters(**changes)
