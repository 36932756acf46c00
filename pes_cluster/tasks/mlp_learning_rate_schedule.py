"""Two meta-parameters: the learning-rate schedule of an MLP trained on real images.

Section 5.2 of Vicol et al., ICML 2021. T steps of SGD with momentum under the schedule

    lr_t = initial_learning_rate / (1 + t / decay_steps)^decay,     t = 0 .. T - 1

theta holds the logs of the two. The loss of a step is measured after it, on a fresh
minibatch: the training loss, or minus the validation accuracy. Short windows reward
steps that help at once, so truncated methods decay too early; full unrolls do not.
"""

import dataclasses
import math
from typing import Literal, NamedTuple, TypedDict, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task import TaskError
from pes_cluster.models import mlp
from pes_cluster.tasks import datasets

DatasetName = Literal["digits", "mnist", "fashion_mnist"]
Objective = Literal["train_loss", "validation_accuracy"]

_CLASSES = 10


class Schedule(TypedDict):
    """Theta: natural logs of the initial learning rate and of the decay's exponent."""

    log_learning_rate: jax.Array
    log_decay: jax.Array


class Training(NamedTuple):
    """The inner state: the network, its momentum buffers, and the steps it took."""

    layers: list[mlp.Layer]
    momentum: list[mlp.Layer]
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class MLPLearningRateSchedule:
    """The learning-rate schedule of an MLP with ReLU units; in float32.

    The defaults of the network and the episode are a small problem on the shipped
    digits; the paper's are MNIST, (100, 100) and 5000.

    Attributes:
        dataset: Which images.
        data_dir: Where the files of MNIST and Fashion-MNIST are: the folder that holds
            them or their folder `mnist` or `fashion_mnist`, or "download"; None for the
            environment variable PES_DATA_DIR.
        hidden: Units of each hidden layer.
        episode_length: T, the number of training steps.
        batch_size: Images in a minibatch, drawn with replacement.
        momentum: PyTorch's form, ``buffer <- momentum buffer + gradient``.
        weight_decay: Added to the gradient, ``weight_decay * weights``.
        decay_steps: Time scale of the schedule; None for `episode_length`.
        initial_learning_rate: exp of theta's first entry to start from.
        initial_decay: exp of theta's second entry to start from.
        objective: Of a step: the loss on a fresh training minibatch, or minus the
            accuracy on a minibatch of the validation split (piecewise constant:
            evolution only).
        max_loss: A training loss above it, or not finite, counts as this much. It
            bounds what one diverged network adds to an estimate; None for no bound.
    """

    dataset: DatasetName = "digits"
    data_dir: str | None = None
    hidden: tuple[int, ...] = (32, 32)
    episode_length: int = 1000
    batch_size: int = 100
    momentum: float = 0.9
    weight_decay: float = 1e-10
    decay_steps: int | None = None
    initial_learning_rate: float = 0.003
    initial_decay: float = 30.0
    objective: Objective = "train_loss"
    max_loss: float | None = None

    def __post_init__(self) -> None:
        for field, allowed in (("dataset", DatasetName), ("objective", Objective)):
            if getattr(self, field) not in get_args(allowed):
                self._refuse(field, f"one of {', '.join(get_args(allowed))}")
        for field in ("batch_size", "initial_learning_rate", "initial_decay"):
            if not getattr(self, field) > 0:
                self._refuse(field, "positive")
        if self.max_loss is not None and not self.max_loss > 0:
            self._refuse("max_loss", "positive, or null for no bound")
        if self.decay_steps is not None and self.decay_steps < 1:
            self._refuse("decay_steps", "positive, or null for episode_length")
        if any(units < 1 for units in self.hidden):
            self._refuse("hidden", "positive numbers of units")

    def _refuse(self, field: str, expected: str) -> None:
        raise TaskError(
            f"mlp_learning_rate_schedule: {field} must be {expected}, "
            f"not {getattr(self, field)!r}"
        )

    def initial_theta(self, key: jax.Array) -> Schedule:
        """Returns the logs of the initial values; the key is ignored."""
        del key
        return Schedule(
            log_learning_rate=jnp.float32(math.log(self.initial_learning_rate)),
            log_decay=jnp.float32(math.log(self.initial_decay)),
        )

    def init(self, theta: Schedule, key: jax.Array) -> Training:
        """Initialises the network from the key (see `models.mlp.init`)."""
        del theta
        pixels = self._images().train_images.shape[1]
        layers = mlp.init(key, (pixels, *self.hidden, _CLASSES))
        return Training(layers, jax.tree.map(jnp.zeros_like, layers), jnp.int32(0))

    def step(
        self, theta: Schedule, state: Training, key: jax.Array
    ) -> tuple[Training, jax.Array]:
        """Trains on one minibatch and returns the objective on another.

        The minibatches depend on the key alone: where trajectories share the key they
        stay unbatched under vmap, and the first layers of all become one matrix
        product.
        """
        train_key, objective_key = jax.random.split(key)
        inputs, labels = self._minibatch(train_key, validation=False)
        gradient = jax.grad(cross_entropy)(state.layers, inputs, labels)
        momentum = jax.tree.map(
            lambda buffer, g, w: self.momentum * buffer + g + self.weight_decay * w,
            state.momentum,
            gradient,
            state.layers,
        )
        rate = self.learning_rate(theta, state.step)
        layers = jax.tree.map(lambda w, m: w - rate * m, state.layers, momentum)
        loss = self._objective(layers, objective_key)
        return Training(layers, momentum, state.step + 1), loss

    def learning_rate(self, theta: Schedule, step: jax.Array) -> jax.Array:
        """The schedule: lr_t in float32, for t = `step` of any shape."""
        log_rate = jnp.asarray(theta["log_learning_rate"], jnp.float32)
        decay = jnp.exp(jnp.asarray(theta["log_decay"], jnp.float32))
        time = jnp.asarray(step, jnp.float32) / np.float32(
            self.decay_steps or self.episode_length
        )
        # In logs a large decay underflows to a rate of 0 with a finite derivative.
        return jnp.exp(log_rate - decay * jnp.log1p(time))

    def _objective(self, layers: list[mlp.Layer], key: jax.Array) -> jax.Array:
        if self.objective == "train_loss":
            batch = self._minibatch(key, validation=False)
            return self._bounded(cross_entropy(layers, *batch))
        inputs, labels = self._minibatch(key, validation=True)
        hits = jnp.argmax(mlp.apply(layers, inputs), axis=-1) == labels
        return -jnp.mean(hits, dtype=jnp.float32)

    def _bounded(self, loss: jax.Array) -> jax.Array:
        if self.max_loss is None:
            return loss
        # NaN fails the comparison, so it takes the bound too.
        return jnp.where(loss < self.max_loss, loss, jnp.float32(self.max_loss))

    def _minibatch(
        self, key: jax.Array, *, validation: bool
    ) -> tuple[jax.Array, jax.Array]:
        data = self._images()
        images = data.validation_images if validation else data.train_images
        labels = data.validation_labels if validation else data.train_labels
        rows = jax.random.randint(
            key, (self.batch_size,), 0, len(labels), dtype=jnp.int32
        )
        pixels = jnp.asarray(images)[rows].astype(jnp.float32)
        standard = (pixels - np.float32(data.offset)) / np.float32(data.scale)
        return standard, jnp.asarray(labels)[rows].astype(jnp.int32)

    def _images(self) -> datasets.Images:
        return datasets.load(self.dataset, self.data_dir)


def cross_entropy(
    layers: list[mlp.Layer], inputs: jax.Array, labels: jax.Array
) -> jax.Array:
    """Mean negative log likelihood of labels [b] given inputs [b, pixels]."""
    log_probabilities = jax.nn.log_softmax(mlp.apply(layers, inputs))
    return -jnp.mean(jnp.take_along_axis(log_probabilities, labels[:, None], axis=1))
