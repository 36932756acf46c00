"""The MLP learned optimiser against loops over single parameters, and as a task."""

import dataclasses

import jax
import numpy as np
import optax
import pytest

from pes_cluster.core.task import TaskError
from pes_cluster.models import learned_optimizer
from pes_cluster.tasks.learned_optimizer import LearnedOptimizer

KEY = jax.random.key(0)
KEYS = jax.random.split(KEY, 2)


def drawn(seed, hidden=(32, 32)):
    """Weights of the published shapes, biases too; numpy draws without compiling."""
    shapes = jax.eval_shape(lambda key: learned_optimizer.init(key, hidden), KEY)
    generator = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: generator.normal(size=x.shape, scale=0.5).astype(np.float32), shapes
    )


def test_it_has_19_inputs_and_1762_weights():
    assert learned_optimizer.NUM_INPUTS == 19
    assert sum(x.size for x in jax.tree.leaves(drawn(0))) == 1762


def one_parameter(layers, gradient, param, momenta, roots, step):
    """The published formula for a single parameter, inputs in their published order."""
    inputs = np.array([gradient, param, *momenta]) / roots
    scales = [1, 3, 10, 30, 100, 300, 1e3, 3e3, 1e4, 3e4, 1e5]
    x = np.concatenate([inputs, [np.tanh(step / tau - 1) for tau in scales]])
    for weight, bias in layers[:-1]:
        x = np.maximum(x @ weight + bias, 0)
    direction, magnitude = x @ layers[-1].weight + layers[-1].bias
    return -0.001 * direction * np.exp(0.001 * magnitude)


def test_two_updates_are_the_published_formula():
    layers, generator = drawn(1), np.random.default_rng(2)
    params = {
        name: generator.normal(size=size).astype(np.float32)
        for name, size in (("weight", (3, 2)), ("bias", (2,)))
    }
    optimizer = learned_optimizer.transformation(layers)
    memory, update = optimizer.init(params), jax.jit(optimizer.update)
    kept = {name: np.zeros((*p.shape, 6)) for name, p in params.items()}
    decays = np.array([0.1, 0.5, 0.9, 0.99, 0.999, 0.9999])
    for step in range(2):
        gradient = jax.tree.map(
            lambda p: generator.normal(size=p.shape).astype(np.float32), params
        )
        updates, memory = update(gradient, memory, params)
        for name, p in params.items():
            kept[name] = decays * kept[name] + (1 - decays) * gradient[name][..., None]
            each = [gradient[name][..., None], p[..., None], kept[name]]
            inputs = np.concatenate(each, -1).reshape(-1, 8)
            roots = np.sqrt((inputs**2).mean(0) + 1e-5)
            expected = [
                one_parameter(layers, x[0], x[1], x[2:], roots, step) for x in inputs
            ]
            np.testing.assert_allclose(
                updates[name].reshape(-1), expected, rtol=1e-4, atol=1e-7
            )
            np.testing.assert_allclose(memory.momenta[name], kept[name], rtol=1e-5)
    assert int(memory.step) == 2


def test_the_scale_of_a_gradient_does_not_matter():
    """Each input is of unit mean square over its tensor."""
    generator = np.random.default_rng(3)
    gradient, param, momenta = (
        generator.normal(size=size) for size in ((50,), (50,), (50, 6))
    )
    found = learned_optimizer.tensor_inputs(1e4 * gradient, 7 * param, 1e3 * momenta)
    np.testing.assert_allclose(np.mean(np.square(found), 0), 1, rtol=1e-4)


def test_an_update_without_parameters_says_so():
    optimizer = learned_optimizer.transformation(drawn(0))
    params = {"w": np.ones(2, np.float32)}
    with pytest.raises(ValueError, match="needs the parameters"):
        optimizer.update(params, optimizer.init(params))


TASK = LearnedOptimizer(
    hidden=(), optimizer_hidden=(4,), batch_size=8, episode_length=5
)


def test_a_step_of_the_task_is_the_optimisers():
    """And where its steps are huge, its loss is bounded and stays a number."""
    layers = drawn(4, hidden=(4,))
    huge = jax.tree.map(lambda x: 1e3 * x, layers)

    def two_steps(theta):
        state = TASK.init(theta, KEY)
        return jax.lax.scan(lambda s, key: TASK.step(theta, s, key), state, KEYS)

    def two_updates(theta):
        params, optimizer = TASK.network(KEY), learned_optimizer.transformation(theta)
        memory = optimizer.init(params)
        for key in (KEYS[0], KEYS[1]):
            gradient = TASK.gradient(params, jax.random.split(key)[0])
            updates, memory = optimizer.update(gradient, memory, params)
            params = optax.apply_updates(params, updates)
        return params

    run = jax.jit(two_steps)
    state, _ = run(layers)
    expected = jax.jit(two_updates)(layers)
    np.testing.assert_allclose(
        state.layers[0].weight, expected[0].weight, rtol=1e-4, atol=1e-6
    )
    assert run(huge)[1].tolist()[1] == 20.0


def test_theta_differs_by_key_and_follows_the_sizes():
    shapes = jax.eval_shape(TASK.initial_theta, KEY)
    assert [x.shape for x in jax.tree.leaves(shapes)] == [(19, 4), (4,), (4, 2), (2,)]
    with pytest.raises(TaskError, match="^learned_optimizer: optimizer_hidden must be"):
        dataclasses.replace(TASK, optimizer_hidden=(0,))
