"""The MLP schedule task: its arithmetic, its dtypes, and its shared minibatches."""

import dataclasses
import functools

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.evaluation import evaluator
from pes_cluster.core.task import TaskError, check_task
from pes_cluster.models import mlp
from pes_cluster.tasks.image_classification import cross_entropy
from pes_cluster.tasks.mlp_learning_rate_schedule import MLPLearningRateSchedule

KEY = jax.random.key(0)
TASK = MLPLearningRateSchedule(
    hidden=(5,), batch_size=6, episode_length=20, initial_learning_rate=0.1
)


STEP = jax.jit(TASK.step)


@functools.cache
def started(task=TASK):
    """Theta and a first state; cached because initialising compiles."""
    theta = task.initial_theta(KEY)
    return theta, jax.jit(task.init)(theta, jax.random.key(1))


def test_shapes_of_state_and_loss():
    theta, state = started()
    sizes = [(64, 5), (5,), (5, 10), (10,)]
    assert [x.shape for x in jax.tree.leaves(state.layers)] == sizes
    assert [x.shape for x in jax.tree.leaves(state.momentum)] == sizes
    assert state.step.dtype == jnp.int32
    after, loss = jax.eval_shape(TASK.step, theta, state, KEY)
    assert loss.shape == ()
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("objective", ["train_loss", "validation_accuracy"])
def test_everything_stays_float32_in_either_float_mode(x64, objective):
    task = dataclasses.replace(TASK, objective=objective)
    with jax.enable_x64(x64):
        check_task(task)
        theta = jax.eval_shape(task.initial_theta, KEY)
        assert theta["log_decay"].dtype == jnp.float32
        wide = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, float), theta)
        state = jax.eval_shape(task.init, wide, KEY)
        after, loss = jax.eval_shape(task.step, wide, state, KEY)
        leaves = jax.tree.leaves((loss, after.layers, after.momentum))
        assert {x.dtype for x in leaves} == {np.dtype(np.float32)}


def test_float_mode_does_not_change_the_numbers():
    def two_steps():
        theta, state = started()
        state, first = STEP(theta, state, jax.random.key(2))
        return [float(first), float(STEP(theta, state, jax.random.key(3))[1])]

    narrow = two_steps()
    with jax.enable_x64(True):
        assert two_steps() == pytest.approx(narrow, rel=1e-6)


def test_the_schedule_is_inverse_time_decay():
    task = dataclasses.replace(TASK, decay_steps=50)
    theta = {"log_learning_rate": np.log(0.2), "log_decay": np.log(3.0)}
    t = np.arange(20)
    expected = 0.2 / (1 + t / 50) ** 3.0
    np.testing.assert_allclose(task.learning_rate(theta, t), expected, rtol=1e-5)
    # Without decay_steps the time scale is the episode.
    expected = 0.2 / (1 + t / 20) ** 3.0
    np.testing.assert_allclose(TASK.learning_rate(theta, t), expected, rtol=1e-5)


def test_an_enormous_decay_has_a_finite_derivative():
    theta = {"log_learning_rate": jnp.float32(0), "log_decay": jnp.float32(8)}
    slope = jax.grad(lambda th: TASK.learning_rate(th, jnp.int32(19)))(theta)
    assert all(np.isfinite(x) for x in jax.tree.leaves(slope))


def test_two_steps_are_pytorchs_momentum_sgd():
    task = dataclasses.replace(TASK, momentum=0.7, weight_decay=0.01)
    step = jax.jit(task.step)
    minibatch = jax.jit(lambda key: task.minibatch(key, validation=False))
    gradient_of = jax.jit(jax.grad(cross_entropy))
    theta, state = started(task)
    weights, buffers = state.layers, state.momentum
    for t in range(2):
        train_key, objective_key = jax.random.split(jax.random.key(t))
        gradient = gradient_of(weights, *minibatch(train_key))
        buffers = jax.tree.map(
            lambda b, g, w: 0.7 * b + (g + 0.01 * w), buffers, gradient, weights
        )
        rate = 0.1 / (1 + t / 20) ** 30.0
        weights = jax.tree.map(lambda w, b, rate=rate: w - rate * b, weights, buffers)
        state, loss = step(theta, state, jax.random.key(t))
        fresh = cross_entropy(weights, *task.minibatch(objective_key, validation=False))
        assert loss == pytest.approx(float(fresh), rel=1e-5)
    for found, expected in zip(
        jax.tree.leaves(state.layers), jax.tree.leaves(weights), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert int(state.step) == 2


def test_cross_entropy_of_a_network_of_zeros_is_that_of_chance():
    layers = jax.tree.map(jnp.zeros_like, mlp.init(KEY, (3, 4, 10)))
    loss = cross_entropy(layers, jnp.ones((7, 3)), jnp.arange(7))
    assert loss == pytest.approx(np.log(10), rel=1e-6)


def test_validation_accuracy_is_negated_and_from_the_other_split():
    task = dataclasses.replace(TASK, objective="validation_accuracy", batch_size=50)
    theta, state = started(task)
    after, loss = jax.jit(task.step)(theta, state, KEY)
    inputs, labels = task.minibatch(jax.random.split(KEY)[1], validation=True)
    logits = np.asarray(mlp.apply(after.layers, inputs))
    accuracy = np.mean(logits.argmax(-1) == np.asarray(labels))
    assert float(loss) == pytest.approx(-accuracy, abs=1e-6)
    held_out = task.images().validation_images
    inputs = np.asarray(inputs)
    raw = np.rint(inputs * task.images().scale + task.images().offset)
    assert all((held_out == row).all(-1).any() for row in raw)


def test_minibatches_are_drawn_with_replacement_from_all_rows():
    task = dataclasses.replace(TASK, batch_size=4000)
    _, labels = task.minibatch(KEY, validation=False)
    counts = np.bincount(labels, minlength=10) / 4000
    shares = np.bincount(task.images().train_labels) / 1500
    # Five standard errors of a share of about 0.1.
    np.testing.assert_allclose(counts, shares, atol=5 * np.sqrt(0.1 * 0.9 / 4000))


def scaled(state, factor):
    """The state with all weights multiplied by `factor`."""
    return state._replace(layers=jax.tree.map(lambda x: x * factor, state.layers))


def test_max_loss_bounds_diverged_networks_alone():
    theta, state = started()
    scales = jnp.asarray([1.0, 1e3, np.nan])
    layers = jax.vmap(lambda c: scaled(state, c))(scales).layers

    def losses(task):
        def loss(layers):
            return task.step(theta, state._replace(layers=layers), KEY)[1]

        return jax.jit(jax.vmap(loss))(layers)

    free, bounded = losses(TASK), losses(dataclasses.replace(TASK, max_loss=5.0))
    assert free[0] < 5.0 < free[1]
    assert np.isnan(free[2])
    np.testing.assert_array_equal(bounded, [free[0], 5.0, 5.0])


def test_a_shared_key_leaves_the_minibatch_unbatched():
    """Over [pairs, 2] networks the images are gathered once, [batch, pixels]."""
    pairs = 3
    theta, state = started()
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (pairs, 2, *x.shape)), state)
    thetas = jax.tree.map(lambda x: jnp.full((pairs, 2), x), theta)
    step = jax.vmap(jax.vmap(TASK.step, (0, 0, None)), (0, 0, None))
    shared = jax.make_jaxpr(step)(thetas, many, KEY)
    assert (TASK.batch_size, 64) in gathered(shared)
    assert (pairs, 2, TASK.batch_size, 64) not in gathered(shared)
    # And the check can tell: with a key for each pair, the images are batched.
    apart = jax.vmap(jax.vmap(TASK.step, (0, 0, None)), (0, 0, 0))
    keys = jax.random.split(KEY, pairs)
    batched = jax.make_jaxpr(apart)(thetas, many, keys)
    assert (TASK.batch_size, 64) not in gathered(batched)


def gathered(jaxpr) -> set[tuple[int, ...]]:
    """Shapes of all images gathered anywhere in a jaxpr."""
    shapes = set()
    for equation in jaxpr.eqns:
        if equation.primitive.name == "gather":
            shapes.add(equation.outvars[0].aval.shape)
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            shapes |= gathered(inner)
    return shapes


def test_a_shared_key_gives_every_network_its_own_numbers():
    theta, state = started()
    scale = jnp.arange(4, dtype=jnp.float32)
    states = jax.vmap(lambda c: scaled(state, c))(scale)
    _, losses = jax.jit(jax.vmap(TASK.step, (None, 0, None)))(theta, states, KEY)
    for i in range(4):
        _, alone = STEP(theta, jax.tree.map(lambda x, i=i: x[i], states), KEY)
        assert losses[i] == pytest.approx(float(alone), rel=1e-5)


def test_training_learns_the_digits():
    task = dataclasses.replace(
        TASK,
        hidden=(32, 32),
        batch_size=32,
        initial_decay=0.1,
        objective="validation_accuracy",
        episode_length=100,
    )
    total = jax.jit(evaluator(task))(task.initial_theta(KEY), KEY)
    assert -total / 100 > 0.6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "cifar"}, "dataset must be one of digits, mnist, fashion_mnist, "),
        ({"objective": "loss"}, "objective must be one of train_loss, validation_lo"),
        ({"batch_size": 0}, "batch_size must be positive, not 0"),
        ({"initial_decay": -1.0}, "initial_decay must be positive, not -1.0"),
        ({"max_loss": 0.0}, "max_loss must be positive"),
        ({"decay_steps": 0}, "decay_steps must be positive"),
        ({"hidden": (3, 0)}, "hidden must be positive"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(changes, message):
    with pytest.raises(TaskError, match=f"^mlp_learning_rate_schedule: {message}"):
        MLPLearningRateSchedule(**changes)
