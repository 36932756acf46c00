"""Two parameters of a chaotic system, from its trajectory.

Lorenz 1963; the learning problem of Li et al., *Noise-Reuse in Online Evolution
Strategies*, NeurIPS 2023. Euler steps of dt = 0.005 of

    x' = a (y - x),        y' = x (r - z) - y,        z' = x y - b z

once with the true a = 10, r = 28, b = 8/3, once with theta = (log a, log r), from
(1.2, 1.3, 1.6). The loss of a step is the square of z's error after it. Nearby
trajectories part exponentially: over long episodes the loss is rugged and derivatives
through time explode: a smoothed loss is what can be descended.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.core.task import TaskError

_START = (1.2, 1.3, 1.6)
_TRUE_A, _TRUE_R, _B = 10.0, 28.0, 8 / 3


class Trajectories(NamedTuple):
    """The inner state: (x, y, z) of the model and of the true system, [3] each."""

    model: jax.Array
    truth: jax.Array


@dataclasses.dataclass(frozen=True)
class Lorenz:
    """The Lorenz system; theta is (log a, log r), an array [2]. Deterministic.

    Attributes:
        initial: Theta to start from; the truth is (log 10, log 28) = (2.303, 3.332).
        episode_length: T, Euler steps.
        time_step: dt.
    """

    initial: tuple[float, float] = (3.116, 3.7)
    episode_length: int = 2000
    time_step: float = 0.005

    def __post_init__(self) -> None:
        if len(self.initial) != 2:
            raise TaskError(
                f"lorenz: initial must be two numbers, not {self.initial!r}"
            )
        if not self.time_step > 0:
            raise TaskError(f"lorenz: time_step must be positive, not {self.time_step}")

    def initial_theta(self, key: jax.Array) -> jax.Array:
        """Returns `initial`; the key is ignored."""
        del key
        return jnp.asarray(self.initial, dtype=float)

    def init(self, theta: jax.Array, key: jax.Array) -> Trajectories:
        """Starts both systems at one point; the key is ignored."""
        del key
        start = jnp.array(_START, theta.dtype)
        return Trajectories(start, start)

    def step(
        self, theta: jax.Array, state: Trajectories, key: jax.Array
    ) -> tuple[Trajectories, jax.Array]:
        """Moves both systems once; the key is ignored."""
        del key
        a, r = jnp.exp(theta)
        model = state.model + self.time_step * velocity(state.model, a, r)
        truth = state.truth + self.time_step * velocity(state.truth, _TRUE_A, _TRUE_R)
        return Trajectories(model, truth), (model[2] - truth[2]) ** 2


def velocity(point: jax.Array, a: jax.Array | float, r: jax.Array | float) -> jax.Array:
    """The right-hand side of the system at (x, y, z)."""
    x, y, z = point
    return jnp.stack([a * (y - x), x * (r - z) - y, x * y - _B * z])
