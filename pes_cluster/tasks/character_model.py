"""A character-level language model, trained without looking far back.

The recurrent network of `models.recurrent` reads a text one character a step; theta is
its weights, and the loss of a step the cross-entropy of the next character in nats,
averaged over `batch_size` places in the text that are read side by side:

    memory, logits = LSTM(theta, memory, x_t),        L_t = -log softmax(logits)[x_t+1]

It is the problem on which Vicol et al., ICML 2021, measure the variance of PES against
the number of windows: 5 units, one place, the first 1000 characters of the text
(``place: first``), where theta stays as it is. There the text decides: `random` symbols
give windows whose gradients do not agree, `repeat` one whose gradients do.

Theta takes JAX's default float, so that differences of long sums can be had in float64.
"""

import dataclasses
from typing import Literal, NamedTuple, NoReturn, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task import TaskError
from pes_cluster.models import recurrent
from pes_cluster.tasks import texts


class Reading(NamedTuple):
    """The inner state: the layer's memory [b, H], and the places in the text [b]."""

    memory: recurrent.Memory
    place: jax.Array


@dataclasses.dataclass(frozen=True)
class CharacterModel:
    """A character-level LSTM; theta is its weights.

    Attributes:
        text: Which text; `random` and `repeat` are generated.
        data_dir: Where the files of the others are: the folder that holds them or their
            folder, or "download"; None for the environment variable PES_DATA_DIR.
        embedding_size: Units that stand for a character.
        hidden_size: Units of the LSTM.
        batch_size: Places that are read side by side.
        episode_length: T, characters from an empty memory to the next.
        place: Where episodes begin in the training text: at random, or all at its
            `first` character.
    """

    text: texts.Name = "random"
    data_dir: str | None = None
    embedding_size: int = 5
    hidden_size: int = 5
    batch_size: int = 1
    episode_length: int = 1000
    place: Literal["random", "first"] = "random"

    def __post_init__(self) -> None:
        if self.text not in get_args(texts.Name):
            self._refuse("text", f"one of {', '.join(get_args(texts.Name))}")
        if self.place not in ("random", "first"):
            self._refuse("place", "random or first")
        for field in ("embedding_size", "hidden_size", "batch_size", "episode_length"):
            if not getattr(self, field) > 0:
                self._refuse(field, "positive")

    def _refuse(self, field: str, expected: str) -> NoReturn:
        raise TaskError(
            f"character_model: {field} must be {expected}, not {getattr(self, field)!r}"
        )

    def initial_theta(self, key: jax.Array) -> recurrent.Network:
        """Initialises the network from the key."""
        symbols = len(texts.load(self.text, self.data_dir).symbols)
        dtype = jnp.result_type(float)
        return recurrent.init(
            key, symbols, self.embedding_size, self.hidden_size, dtype
        )

    def init(self, theta: recurrent.Network, key: jax.Array) -> Reading:
        """Opens the training text at `batch_size` places, with an empty memory."""
        return self._opened(theta, key, self._text().train)

    def step(
        self, theta: recurrent.Network, state: Reading, key: jax.Array
    ) -> tuple[Reading, jax.Array]:
        """Reads one character at each place; the key is ignored."""
        del key
        return _read(theta, state, self._text().train)

    def evaluate(self, theta: recurrent.Network, key: jax.Array) -> jax.Array:
        """The summed loss of an episode: of the validation text, at random places.

        Where all episodes begin at the first character, it is theirs.
        """
        text = self._text()
        part = text.train if self.place == "first" else text.validation
        start = self._opened(theta, key, part)
        _, losses = jax.lax.scan(
            lambda state, _: _read(theta, state, part),
            *(start, None, self.episode_length),
        )
        return jnp.sum(losses)

    def _opened(
        self, theta: recurrent.Network, key: jax.Array, text: np.ndarray
    ) -> Reading:
        places, shape = len(text) - self.episode_length, (self.batch_size,)
        if places < 1:
            self._refuse(
                "episode_length", f"less than the text's {len(text)} characters"
            )
        first = jnp.zeros(shape, jnp.int32)
        if self.place == "random":
            first = jax.random.randint(key, shape, 0, places, jnp.int32)
        return Reading(recurrent.start(theta, self.batch_size), first)

    def _text(self) -> texts.Text:
        return texts.load(self.text, self.data_dir)


def _read(
    theta: recurrent.Network, state: Reading, text: np.ndarray
) -> tuple[Reading, jax.Array]:
    characters = jnp.asarray(text)
    memory, logits = recurrent.step(theta, state.memory, characters[state.place])
    following = characters[state.place + 1].astype(jnp.int32)
    scores = jax.nn.log_softmax(logits)
    loss = -jnp.mean(jnp.take_along_axis(scores, following[:, None], axis=1))
    return Reading(memory, state.place + 1), loss
