"""The character model against loops in numpy, and how it reads its text."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.evaluation import evaluator
from pes_cluster.core.task import TaskError, check_task
from pes_cluster.models import recurrent
from pes_cluster.tasks import texts
from pes_cluster.tasks.character_model import CharacterModel

KEY = jax.random.key(0)
TASK = CharacterModel(episode_length=6, place="first")


def drawn(task, seed=0, dtype=np.float64):
    """Weights of the task's shapes; numpy draws without compiling."""
    generator = np.random.default_rng(seed)
    shapes = jax.eval_shape(task.initial_theta, KEY)
    return jax.tree.map(lambda x: generator.normal(size=x.shape).astype(dtype), shapes)


def test_the_published_network_has_11_v_plus_240_weights():
    sizes = [x.size for x in jax.tree.leaves(jax.eval_shape(TASK.initial_theta, KEY))]
    assert sum(sizes) == 11 * 50 + 240 == 790


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def losses_by_loops(theta, text, first, length):
    """The cell gate by gate: f, i, o, candidate."""
    h, c, losses = np.zeros(5), np.zeros(5), []
    for t in range(first, first + length):
        gates = theta.embedding[text[t]] @ theta.inputs.weight + theta.inputs.bias
        gates = gates + h @ theta.recurrent.weight + theta.recurrent.bias
        f, i, o, g = gates[:5], gates[5:10], gates[10:15], gates[15:]
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        logits = h @ theta.decoder.weight + theta.decoder.bias
        losses.append(np.log(np.exp(logits).sum()) - logits[text[t + 1]])
    return losses


def test_losses_are_those_of_the_cell_written_out():
    """In float64, from the first character and from two random places at once."""
    with jax.enable_x64(True):
        theta = drawn(TASK)
        text = texts.load("random")
        expected = losses_by_loops(theta, text.train, 0, 6)
        assert float(evaluator(TASK)(theta, KEY)) == pytest.approx(sum(expected))
        two = dataclasses.replace(TASK, place="random", batch_size=2)

        @jax.jit
        def read(theta):
            start = two.init(theta, KEY)
            step = lambda state, _: two.step(theta, state, KEY)  # noqa: E731
            return start.place, jax.lax.scan(step, start, length=6)

        places, (after, losses) = read(theta)
        apart = [losses_by_loops(theta, text.train, int(p), 6) for p in places]
        np.testing.assert_allclose(losses, np.mean(apart, 0), rtol=1e-10)
        assert (after.place - places == 6).all()
        assert len(set(places.tolist())) == 2


def test_random_places_leave_room_for_an_episode():
    length = len(texts.load("random").train)
    task = CharacterModel(episode_length=length - 3, batch_size=1000)
    places = task.init(drawn(task, dtype=np.float32), KEY).place
    assert sorted(set(places.tolist())) == [0, 1, 2]


def test_the_theta_of_either_float_mode():
    for x64 in (False, True):
        with jax.enable_x64(x64):
            check_task(TASK)
            shapes = jax.eval_shape(TASK.initial_theta, KEY)
            expected = jnp.float64 if x64 else jnp.float32
            assert {x.dtype for x in jax.tree.leaves(shapes)} == {np.dtype(expected)}


def test_embeddings_start_small_and_biases_at_zero():
    theta = jax.jit(recurrent.init, static_argnums=(1, 2, 3))(KEY, 50, 5, 5)
    assert 0.09 < jnp.abs(theta.embedding).max() < 0.1
    assert not theta.inputs.bias.any()
    assert not theta.recurrent.bias.any()
    # Truncation at two standard deviations leaves 0.88 of one; 100 weights.
    scale = 0.88 * 5**-0.5
    assert theta.recurrent.weight.std() == pytest.approx(scale, rel=5 / 200**0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": "wiki"}, "text must be one of random, repeat, tinyshakespeare, ptb"),
        ({"place": "last"}, "place must be random or first"),
        ({"hidden_size": 0}, "hidden_size must be positive, not 0"),
    ],
)
def test_a_wrong_field_is_one_line_that_names_it(changes, message):
    with pytest.raises(TaskError, match=f"^character_model: {message}"):
        CharacterModel(**changes)


def test_an_episode_longer_than_the_text_is_refused():
    task = CharacterModel(episode_length=90_000)
    with pytest.raises(
        TaskError, match="episode_length must be less than the text's 9"
    ):
        check_task(task)
