"""Two meta-parameters: the learning-rate schedule of an MLP trained on real images.

Section 5.2 of Vicol et al., ICML 2021. T steps of SGD with momentum under the schedule

    lr_t = initial_learning_rate / (1 + t / decay_steps)^decay,     t = 0 .. T - 1

theta holds the logs of the two. The loss of a step is measured after it, on a fresh
minibatch: the training loss, or minus the validation accuracy. Short windows reward
steps that help at once, so truncated methods decay too early; full unrolls do not.
"""

import dataclasses
import math
from typing import ClassVar, NamedTuple, TypedDict

import jax
import jax.numpy as jnp

from pes_cluster.models import mlp, momentum
from pes_cluster.tasks.image_classification import ImageClassification
from pes_cluster.tasks.schedules import inverse_time


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
class MLPLearningRateSchedule(ImageClassification):
    """The learning-rate schedule of an MLP with ReLU units; in float32.

    The paper's sizes are MNIST, hidden (100, 100) and an episode of 5000. Fields of the
    network and its data: see `ImageClassification`.

    Attributes:
        momentum: PyTorch's form, ``buffer <- momentum buffer + gradient``.
        weight_decay: Added to the gradient, ``weight_decay * weights``.
        decay_steps: Time scale of the schedule; None for `episode_length`.
        initial_learning_rate: exp of theta's first entry to start from.
        initial_decay: exp of theta's second entry to start from.
    """

    momentum: float = 0.9
    weight_decay: float = 1e-10
    decay_steps: int | None = None
    initial_learning_rate: float = 0.003
    initial_decay: float = 30.0

    name: ClassVar[str] = "mlp_learning_rate_schedule"

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("initial_learning_rate", "initial_decay"):
            self.check_positive(field)
        if self.decay_steps is not None and self.decay_steps < 1:
            self.refuse("decay_steps", "positive, or null for episode_length")

    def initial_theta(self, key: jax.Array) -> Schedule:
        """Returns the logs of the initial values; the key is ignored."""
        del key
        return Schedule(
            log_learning_rate=jnp.float32(math.log(self.initial_learning_rate)),
            log_decay=jnp.float32(math.log(self.initial_decay)),
        )

    def init(self, theta: Schedule, key: jax.Array) -> Training:
        """Initialises the network from the key."""
        del theta
        layers = self.network(key)
        return Training(layers, jax.tree.map(jnp.zeros_like, layers), jnp.int32(0))

    def step(
        self, theta: Schedule, state: Training, key: jax.Array
    ) -> tuple[Training, jax.Array]:
        """Trains on one minibatch and returns the objective on another."""
        train_key, objective_key = jax.random.split(key)
        layers, buffers = momentum.step(
            state.layers,
            state.momentum,
            self.gradient(state.layers, train_key),
            self.learning_rate(theta, state.step),
            self.momentum,
            self.weight_decay,
        )
        loss = self.judged(layers, objective_key)
        return Training(layers, buffers, state.step + 1), loss

    def learning_rate(self, theta: Schedule, step: jax.Array) -> jax.Array:
        """The schedule: lr_t in float32, for t = `step` of any shape."""
        log_rate = jnp.asarray(theta["log_learning_rate"], jnp.float32)
        log_decay = jnp.asarray(theta["log_decay"], jnp.float32)
        time_scale = self.decay_steps or self.episode_length
        return jnp.exp(inverse_time(log_rate, log_decay, step, time_scale))
