"""Two meta-parameters and many local minima: the learning rates of a short descent.

Section 5.1 of Vicol et al., ICML 2021. T steps of gradient descent on

    f(x) = sqrt(x_0^2 + 5) - sqrt(5) + sin(x_1)^2 exp(-5 x_0^2) + |x_1 - 100| / 4

from x = (1, 1) with the learning rate interpolated between exp(theta_0) and
exp(theta_1):

    lr_t = exp(theta_0) (T - t) / T + exp(theta_1) t / T,     t = 0 .. T - 1

The loss of a step is f after it. Truncated gradients lower the first learning rate and
get stuck at L = 2423; the minimum, 552.2, lies near theta = (2.77, -4.09).
Deterministic.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.core.task import TaskError


class Descent(NamedTuple):
    """The inner state: the point x [2] and how many steps were taken."""

    x: jax.Array
    step: jax.Array


@dataclasses.dataclass(frozen=True)
class ToyRegression:
    """Learning rates of gradient descent on a wavy function; theta is an array [2].

    Attributes:
        initial: Theta to start from, log learning rates; (-4, -4) and (-4.5, -4.5) are
            the published choices.
        episode_length: T, the number of descent steps.
        weight_decay: Of the inner descent.
    """

    initial: tuple[float, float] = (-4.0, -4.0)
    episode_length: int = 100
    weight_decay: float = 1e-10

    def __post_init__(self) -> None:
        if len(self.initial) != 2:
            raise TaskError(
                f"toy_regression: initial must be two numbers, not {self.initial!r}"
            )

    def initial_theta(self, key: jax.Array) -> jax.Array:
        """Returns `initial`; the key is ignored."""
        del key
        return jnp.asarray(self.initial, dtype=float)

    def init(self, theta: jax.Array, key: jax.Array) -> Descent:
        """Starts at (1, 1); the key is ignored."""
        del key
        return Descent(jnp.ones(2, theta.dtype), jnp.int32(0))

    def step(
        self, theta: jax.Array, state: Descent, key: jax.Array
    ) -> tuple[Descent, jax.Array]:
        """Descends once and returns f there; the key is ignored."""
        del key
        progress = state.step.astype(theta.dtype) / self.episode_length
        first, last = jnp.exp(theta)
        learning_rate = first * (1 - progress) + last * progress
        gradient = jax.grad(wavy)(state.x) + self.weight_decay * state.x
        x = state.x - learning_rate * gradient
        return Descent(x, state.step + 1), wavy(x)


def wavy(x: jax.Array) -> jax.Array:
    """The function that is descended; x [2]."""
    bowl = jnp.sqrt(x[0] ** 2 + 5) - 5**0.5
    ridges = jnp.sin(x[1]) ** 2 * jnp.exp(-5 * x[0] ** 2)
    return bowl + ridges + jnp.abs(x[1] - 100) / 4
