"""A linear system whose near influences pull theta the wrong way.

Tallec and Ollivier, *Unbiasing Truncated Backpropagation Through Time*, 2017; section
5.1 of Vicol et al., ICML 2021. One meta-parameter pushes n units, the first p of them
up and the others down:

    s_t = A s_{t-1} + theta (1, .., 1, -1, .., -1),     A = (I + superdiagonal) / 2
    L_t = (s_t[0] - 1)^2 / 2

The units that push s[0] down are farther from it than a short window sees, so a
truncated gradient has the wrong sign. At the fixed point s[0] = -6 theta for n = 23 and
p = 10, hence L = (6 theta + 1)^2 / 2 with its minimum 0 at theta = -1/6. Episodes never
end.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task import TaskError


@dataclasses.dataclass(frozen=True)
class InfluenceBalancing:
    """A scalar theta; the inner state is s, an array [n], from ones. Deterministic.

    Attributes:
        initial: Theta to start from.
        num_units: n.
        num_positive: p, how many units theta pushes up.
        evaluation_steps: How many fresh steps `evaluate` takes.
    """

    initial: float = 0.5
    num_units: int = 23
    num_positive: int = 10
    evaluation_steps: int = 500

    episode_length = None

    def __post_init__(self) -> None:
        if not 0 <= self.num_positive <= self.num_units:
            raise TaskError(
                "influence_balancing: num_positive must lie between 0 and num_units "
                f"({self.num_units}), not be {self.num_positive}"
            )

    def initial_theta(self, key: jax.Array) -> jax.Array:
        """Returns `initial`; the key is ignored."""
        del key
        return jnp.asarray(self.initial, dtype=float)

    def init(self, theta: jax.Array, key: jax.Array) -> jax.Array:
        """Starts at ones; the key is ignored."""
        del key
        return jnp.ones(self.num_units, theta.dtype)

    def step(
        self, theta: jax.Array, state: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Moves the units once; the key is ignored."""
        del key
        units = np.arange(self.num_units)
        push = jnp.where(units < self.num_positive, theta, -theta)
        above = jnp.append(state[1:], jnp.zeros(1, state.dtype))
        state = 0.5 * (state + above) + push
        return state, 0.5 * (state[0] - 1) ** 2

    def evaluate(self, theta: jax.Array, key: jax.Array) -> jax.Array:
        """Returns the loss after `evaluation_steps` fresh steps at theta."""

        def advance(_: jax.Array, state: jax.Array) -> jax.Array:
            return self.step(theta, state, key)[0]

        start = self.init(theta, key)
        state = jax.lax.fori_loop(0, self.evaluation_steps - 1, advance, start)
        return self.step(theta, state, key)[1]
