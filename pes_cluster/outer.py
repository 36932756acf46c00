"""The outer optimiser: recipes for optax, and the one update of theta."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax

from pes_cluster.core import trees
from pes_cluster.core.task import Theta


class Optimizer(Protocol):
    """A frozen dataclass of plain fields that names an optax transformation."""

    def transformation(self) -> optax.GradientTransformation:
        """Returns the optax transformation; updates are added to theta."""
        ...


@dataclasses.dataclass(frozen=True)
class SGD:
    """Stochastic gradient descent, with optional momentum and clipping by norm."""

    learning_rate: float
    momentum: float = 0.0
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _check(self)

    def transformation(self) -> optax.GradientTransformation:
        """Returns the optax transformation."""
        momentum = self.momentum or None
        return _clipped(optax.sgd(self.learning_rate, momentum), self.clip_norm)


@dataclasses.dataclass(frozen=True)
class Adam:
    """Adam (Kingma and Ba 2015), with optional clipping by global norm.

    `l2` times theta is added to the gradient, as the gradient of an L2 penalty; the sum
    is clipped.
    """

    learning_rate: float
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float | None = None
    l2: float = 0.0

    def __post_init__(self) -> None:
        _check(self)

    def transformation(self) -> optax.GradientTransformation:
        """Returns the optax transformation."""
        adam = optax.adam(self.learning_rate, self.b1, self.b2, self.eps)
        clipped = _clipped(adam, self.clip_norm)
        if not self.l2:
            return clipped
        return optax.chain(optax.add_decayed_weights(self.l2), clipped)


@dataclasses.dataclass(frozen=True)
class RMSProp:
    """RMSProp (Tieleman and Hinton 2012), with optional clipping by global norm."""

    learning_rate: float
    decay: float = 0.9
    eps: float = 1e-8
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        _check(self)

    def transformation(self) -> optax.GradientTransformation:
        """Returns the optax transformation."""
        rmsprop = optax.rmsprop(self.learning_rate, self.decay, self.eps)
        return _clipped(rmsprop, self.clip_norm)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OuterState:
    """Theta and what the optimiser remembers of its gradients.

    Attributes:
        theta: After the latest update.
        optimizer_state: Of optax.
        delayed: Theta before the latest update, where windows use that one
            (`outer.staleness: 1`); None otherwise.
    """

    theta: Theta
    optimizer_state: Any
    delayed: Theta | None = None

    @property
    def window_theta(self) -> Theta:
        """The theta that the next window is to use."""
        return self.theta if self.delayed is None else self.delayed


Update = Callable[[OuterState, Theta, Any], tuple[OuterState, jax.Array]]


def start(optimizer: Optimizer, theta: Theta, staleness: int = 0) -> OuterState:
    """Returns the state before the first update."""
    theta = jax.tree.map(jnp.asarray, theta)
    delayed = jax.tree.map(jnp.copy, theta) if staleness else None
    return OuterState(theta, optimizer.transformation().init(theta), delayed)


def update(optimizer: Optimizer) -> Update:
    """Returns ``(state, gradient_sum, weight) -> (state, gradient_norm)``.

    The gradient is ``gradient_sum / weight``; theta moves against it. With a delay of
    one step, as in Hogwild-like asynchronous descent but fixed, it is the gradient at
    the theta of one update ago: ``theta(k+1) = theta(k) - u(g(theta(k-1)))``.
    """
    transformation = optimizer.transformation()

    def step(
        state: OuterState, gradient_sum: Theta, weight: Any
    ) -> tuple[OuterState, jax.Array]:
        gradient = jax.tree.map(
            lambda g: g / jnp.asarray(weight, g.dtype), gradient_sum
        )
        updates, memory = transformation.update(
            gradient, state.optimizer_state, state.theta
        )
        theta = optax.apply_updates(state.theta, updates)
        delayed = None if state.delayed is None else state.theta
        return OuterState(theta, memory, delayed), trees.norms(gradient, 0)

    return step


def _clipped(
    transformation: optax.GradientTransformation, clip_norm: float | None
) -> optax.GradientTransformation:
    if clip_norm is None:
        return transformation
    return optax.chain(optax.clip_by_global_norm(clip_norm), transformation)


def _check(recipe: Any) -> None:
    for name in ("learning_rate", "clip_norm", "eps"):
        value = getattr(recipe, name, None)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name}: {value} must be positive and finite")
    for name in ("momentum", "b1", "b2", "decay"):
        value = getattr(recipe, name, 0.0)
        if not 0 <= value < 1:
            raise ValueError(f"{name}: {value} must be at least 0 and below 1")
    if not 0 <= getattr(recipe, "l2", 0.0) < math.inf:
        raise ValueError(f"l2: {recipe.l2} must be finite and not negative")
