"""29 hyperparameters at once, some of them discrete: widths, rates and momenta.

Section 5.2 of Vicol et al., ICML 2021 (the search on Fashion-MNIST). For an MLP with
five hidden layers of at most 100 units theta holds

    units              [5]   units of layer l = floor(sigmoid(units_l) 100)
    log_learning_rate  [12]  of each tensor, weights and biases apart
    logit_momentum     [12]  likewise

which is 5 + 12 + 12 = 29. The units beyond a layer's number are set to zero before the
ReLU. The loss jumps where a number of units does and is flat between, so that its
derivative says nothing about the widths: evolution only.
"""

import dataclasses
from typing import ClassVar, NamedTuple, TypedDict

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.models import mlp, momentum
from pes_cluster.tasks.image_classification import ImageClassification, Objective
from pes_cluster.tasks.schedules import Scale, constrained, unconstrained

Range = tuple[float, float]


class Hyperparameters(TypedDict):
    """Theta, unconstrained; L hidden layers, hence 2 (L + 1) tensors."""

    units: jax.Array
    log_learning_rate: jax.Array
    logit_momentum: jax.Array


class Training(NamedTuple):
    """The inner state: the network at full width, and its momentum buffers."""

    layers: list[mlp.Layer]
    momentum: list[mlp.Layer]


@dataclasses.dataclass(frozen=True)
class MLPHyperparameters(ImageClassification):
    """Widths, learning rates and momenta of an MLP; theta starts at random.

    The paper's sizes are Fashion-MNIST, hidden (100, 100, 100, 100, 100), an episode of
    1000 and ``objective: validation_loss``. Fields of the network and its data: see
    `ImageClassification`; `hidden` are the largest widths.

    Attributes:
        initial_units: Theta's start is uniform between these shares of a layer's width,
            in the unconstrained space.
        initial_learning_rate: Likewise, the learning rates.
        initial_momentum: Likewise, the momenta.
    """

    initial_units: Range = (0.2, 0.8)
    initial_learning_rate: Range = (1e-4, 1e-2)
    initial_momentum: Range = (0.01, 0.9)
    hidden: tuple[int, ...] = (32, 32, 32, 32, 32)
    objective: Objective = "validation_loss"

    name: ClassVar[str] = "mlp_hyperparameters"
    discrete: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hidden:
            self.refuse("hidden", "at least one number of units")
        self._check_range("initial_learning_rate", np.inf)
        self._check_range("initial_units", 1)
        self._check_range("initial_momentum", 1)

    def initial_theta(self, key: jax.Array) -> Hyperparameters:
        """Draws every number uniformly in its unconstrained range."""
        keys, tensors = jax.random.split(key, 3), 2 * (len(self.hidden) + 1)
        return Hyperparameters(
            units=_uniform(keys[0], len(self.hidden), self.initial_units, "logit"),
            log_learning_rate=_uniform(
                keys[1], tensors, self.initial_learning_rate, "log"
            ),
            logit_momentum=_uniform(keys[2], tensors, self.initial_momentum, "logit"),
        )

    def init(self, theta: Hyperparameters, key: jax.Array) -> Training:
        """Initialises the network, at full width, from the key."""
        del theta
        layers = self.network(key)
        return Training(layers, jax.tree.map(jnp.zeros_like, layers))

    def step(
        self, theta: Hyperparameters, state: Training, key: jax.Array
    ) -> tuple[Training, jax.Array]:
        """Trains on one minibatch and returns the objective on another."""
        train_key, objective_key = jax.random.split(key)
        masks = self.masks(theta)
        structure = jax.tree.structure(state.layers)
        rates, momenta = (
            jax.tree.unflatten(structure, list(values))
            for values in (
                constrained(jnp.float32(theta["log_learning_rate"]), "log"),
                constrained(jnp.float32(theta["logit_momentum"]), "logit"),
            )
        )
        gradient = self.gradient(state.layers, train_key, masks)
        layers, buffers = momentum.step(
            state.layers, state.momentum, gradient, rates, momenta
        )
        return Training(layers, buffers), self.judged(layers, objective_key, masks)

    def units(self, theta: Hyperparameters) -> jax.Array:
        """How many units each hidden layer has: whole numbers as floats, [layers]."""
        share = constrained(jnp.float32(theta["units"]), "logit")
        return jnp.floor(share * np.array(self.hidden, np.float32))

    def masks(self, theta: Hyperparameters) -> list[jax.Array]:
        """For each hidden layer 1 for the units it has and 0 for the others."""
        return [
            (np.arange(width) < units).astype(jnp.float32)
            for width, units in zip(self.hidden, self.units(theta), strict=True)
        ]

    def _check_range(self, field: str, limit: float) -> None:
        low, high = getattr(self, field)
        if not 0 < low <= high < limit:
            self.refuse(field, f"two rising numbers between 0 and {limit}")


def _uniform(key: jax.Array, count: int, bounds: Range, scale: Scale) -> jax.Array:
    low, high = (unconstrained(bound, scale) for bound in bounds)
    return jax.random.uniform(key, (count,), jnp.float32, low, high)
