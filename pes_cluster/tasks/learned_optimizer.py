"""Meta-training an optimiser: theta is the weights of a network that trains networks.

Section 5.3 of Vicol et al., ICML 2021: the MLP learned optimiser of Metz et al., ICML
2019 (`models.learned_optimizer`), trains an MLP with two hidden layers on images. Its
loss surface is steep where an optimiser diverges, so the loss of a step is bounded; the
default is what google/learned_optimization counts a diverged network as.

The loss of a step is measured after it, on a fresh minibatch. Chance is ln 10 = 2.303.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.models import learned_optimizer, mlp
from pes_cluster.tasks.image_classification import ImageClassification

Theta = list[mlp.Layer]


class Training(NamedTuple):
    """The inner state: the network that is trained, and its optimiser's memory."""

    layers: list[mlp.Layer]
    memory: learned_optimizer.Memory


@dataclasses.dataclass(frozen=True)
class LearnedOptimizer(ImageClassification):
    """A learned optimiser that trains an MLP; in float32.

    The paper's sizes are CIFAR-10, hidden (128, 128) and minibatches of 128. Fields of
    the network and its data: see `ImageClassification`.

    Attributes:
        optimizer_hidden: Hidden units of the learned optimiser.
    """

    optimizer_hidden: tuple[int, ...] = (32, 32)
    episode_length: int = 100
    batch_size: int = 32
    max_loss: float | None = 20.0

    name: ClassVar[str] = "learned_optimizer"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(units < 1 for units in self.optimizer_hidden):
            self.refuse("optimizer_hidden", "positive numbers of units")

    def initial_theta(self, key: jax.Array) -> Theta:
        """Initialises the optimiser's network from the key."""
        return learned_optimizer.init(key, self.optimizer_hidden)

    def init(self, theta: Theta, key: jax.Array) -> Training:
        """Initialises the network that is trained from the key."""
        del theta
        layers = self.network(key)
        return Training(layers, learned_optimizer.start(layers))

    def step(
        self, theta: Theta, state: Training, key: jax.Array
    ) -> tuple[Training, jax.Array]:
        """Trains on one minibatch and returns the objective on another."""
        train_key, objective_key = jax.random.split(key)
        gradient = self.gradient(state.layers, train_key)
        updates, memory = learned_optimizer.update(
            theta, gradient, state.memory, state.layers
        )
        layers = jax.tree.map(jnp.add, state.layers, updates)
        return Training(layers, memory), self.judged(layers, objective_key)
