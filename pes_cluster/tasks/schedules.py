"""Hyperparameters that theta holds: unconstrained numbers, and their course over time.

Theta lives in an unconstrained space, where the noise is added (as in the code of Vicol
et al., ICML 2021): a learning rate as its log, a momentum as its logit. An entry holds
one number, or one for each group of parameters, and what its schedule needs.

================  ==================  ===============================================
schedule          entries of theta    unconstrained value at step t
================  ==================  ===============================================
``constant``      value               value
``inverse_time``  value, log_decay    value - exp(log_decay) log(1 + t / tau)
``piecewise``     value [..., knots]  linear between knots at equal distances, the
                                      first at step 0 and the last at the last step
================  ==================  ===============================================

Hence with ``scale: log`` an inverse time schedule is ``v_0 / (1 + t / tau)^decay``.
"""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task import TaskError

Scale = Literal["log", "logit", "linear"]
Entry = dict[str, jax.Array]

# What the usual names of hyperparameters are scaled by.
_SCALES: dict[str, Scale] = {
    **dict.fromkeys(("learning_rate", "weight_decay", "eps", "eps_root"), "log"),
    **dict.fromkeys(("b1", "b2", "b3", "momentum", "decay"), "logit"),
}


@dataclasses.dataclass(frozen=True)
class Hyperparameter:
    """One hyperparameter that is learned.

    Attributes:
        name: As the optimiser calls it.
        initial: Its value to start from, constrained.
        scale: What its unconstrained form is: its log, logit or itself; None chooses by
            the name.
        schedule: Its course over an episode.
        initial_decay: Of ``inverse_time``, the exponent to start from.
        decay_steps: Of ``inverse_time``, tau; None for the episode's length.
        knots: Of ``piecewise``, how many.
    """

    name: str
    initial: float
    scale: Scale | None = None
    schedule: Literal["constant", "inverse_time", "piecewise"] = "constant"
    initial_decay: float = 1.0
    decay_steps: int | None = None
    knots: int = 2

    def __post_init__(self) -> None:
        if self.scale is None and self.name not in _SCALES:
            raise TaskError(
                f"scale: {self.name} has no usual one; give log, logit or linear"
            )
        low, high = {"log": (0, math.inf), "logit": (0, 1)}.get(
            self.scaled_by, (-math.inf, math.inf)
        )
        if not low < self.initial < high:
            raise TaskError(
                f"initial: {self.name} must lie between {low} and {high}, not be "
                f"{self.initial}"
            )
        if self.schedule == "inverse_time" and self.scaled_by != "log":
            raise TaskError("schedule: inverse_time needs scale: log")
        if not self.initial_decay > 0:
            raise TaskError(f"initial_decay: {self.initial_decay} must be positive")
        if self.knots < 2:
            raise TaskError(f"knots: {self.knots} must be at least 2")
        if self.decay_steps is not None and self.decay_steps < 1:
            raise TaskError(f"decay_steps: {self.decay_steps} must be positive")

    @property
    def scaled_by(self) -> Scale:
        """`scale`, or the usual one of the name."""
        return self.scale or _SCALES[self.name]

    def initial_entry(self, shape: tuple[int, ...]) -> Entry:
        """Theta's entry to start from: float32 of `shape`, knots behind."""
        value = unconstrained(self.initial, self.scaled_by)
        if self.schedule == "piecewise":
            return {"value": jnp.full((*shape, self.knots), value, jnp.float32)}
        entry = {"value": jnp.full(shape, value, jnp.float32)}
        if self.schedule == "inverse_time":
            decay = math.log(self.initial_decay)
            entry["log_decay"] = jnp.full(shape, decay, jnp.float32)
        return entry

    def at(self, entry: Entry, step: jax.Array, episode_length: int) -> jax.Array:
        """The constrained value at a step, of the shape of the entry's groups."""
        entry = {name: jnp.asarray(x, jnp.float32) for name, x in entry.items()}
        value = entry["value"]
        if self.schedule == "inverse_time":
            scale = self.decay_steps or episode_length
            value = inverse_time(value, entry["log_decay"], step, scale)
        elif self.schedule == "piecewise":
            value = piecewise(value, step, episode_length)
        return constrained(value, self.scaled_by)


def unconstrained(value: float, scale: Scale) -> float:
    """Returns the number that theta holds for a hyperparameter's value."""
    if scale == "log":
        return math.log(value)
    return math.log(value / (1 - value)) if scale == "logit" else value


def constrained(value: jax.Array, scale: Scale) -> jax.Array:
    """The inverse of `unconstrained`."""
    if scale == "log":
        return jnp.exp(value)
    return jax.nn.sigmoid(value) if scale == "logit" else value


def inverse_time(
    value: jax.Array, log_decay: jax.Array, step: jax.Array, time_scale: int
) -> jax.Array:
    """``value - exp(log_decay) log(1 + step / time_scale)``, in float32.

    In logs a large decay underflows to a rate of 0 with a finite derivative.
    """
    time = jnp.asarray(step, jnp.float32) / np.float32(time_scale)
    return value - jnp.exp(log_decay) * jnp.log1p(time)


def piecewise(knots: jax.Array, step: jax.Array, episode_length: int) -> jax.Array:
    """Interpolates [..., knots] at a step; the last knot is at the last step."""
    last = knots.shape[-1] - 1
    pace = np.float32(last / max(episode_length - 1, 1))
    place = jnp.minimum(jnp.asarray(step, jnp.float32) * pace, last)
    distance = jnp.abs(place - jnp.arange(last + 1, dtype=jnp.float32))
    return knots @ jnp.clip(1 - distance, 0, 1)
