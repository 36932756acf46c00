"""The family's estimators again, in plain loops over particles and steps.

Nothing is shared with the package but the names of the draws: perturbations and the
keys of episodes are looked up, everything else is written anew.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.keys import DataKeys
from pes_cluster.core.perturbations import Perturbations

ROWS, LIMIT, SIGMA = 5, 9, 0.5


@dataclasses.dataclass(frozen=True)
class GeneratedLengths:
    """Episodes as long as theta says: the members of a pair end apart.

    theta = (w[2], lengths[ROWS]); an episode's key chooses its row of `lengths`.
    """

    episode_length: int = LIMIT
    terminates: bool = True

    def initial_theta(self, key: Any) -> Any:
        return jnp.array([0.3, 0.1]), jnp.full(ROWS, 5.0)

    def init(self, theta: Any, key: Any) -> Any:
        return jnp.float32(0.5), row(key), jnp.int32(0)

    def step(self, theta: Any, state: Any, key: Any) -> Any:
        (w, lengths), (x, chosen, t) = theta, state
        x = 0.8 * x + w[0] + w[1] * t
        done = t + 1 >= jnp.round(lengths[chosen])
        return (x, chosen, t + 1), x * x + w[1], done


def row(key: jax.Array) -> jax.Array:
    """Which of the lengths an episode takes."""
    return jax.random.randint(key, (), 0, ROWS)


@dataclasses.dataclass
class _Particle:
    """One member of a pair, or a mean state."""

    clock: int = 0
    episode: int = 0
    x: np.float32 = np.float32(0.5)
    eps: Any = None
    xi: Any = None

    def step(self, theta: np.ndarray, rows: np.ndarray) -> float:
        """One step; theta is flat. The clock is 0 after a terminal step."""
        if self.clock == 0:
            self.x = np.float32(0.5)
        self.x = np.float32(0.8) * self.x + theta[0] + theta[1] * np.float32(self.clock)
        loss = self.x * self.x + theta[1]
        self.clock += 1
        due = self.clock >= np.round(theta[2 + rows[self.episode]])
        if due or self.clock >= LIMIT:
            self.clock, self.episode = 0, self.episode + 1
        return float(loss)


@dataclasses.dataclass(frozen=True)
class Reference:
    """What an estimator should return on `GeneratedLengths`.

    Attributes:
        rule: ``pes``, ``truncated_es``, or the noise period in inner steps.
        accumulate: False for NRES.
    """

    rule: str | int
    accumulate: bool
    length: int
    pairs: int
    windows: int
    seed: int

    def draws(self) -> np.ndarray:
        """Epsilon by name, [pairs, windows, ordinals, 2 + ROWS]."""
        ordinals = self.length + 1
        perturbations = Perturbations(self.seed, lambda k: jnp.full(k.shape, SIGMA))
        names = jnp.stack(
            jnp.meshgrid(jnp.arange(self.windows), jnp.arange(ordinals), indexing="ij"),
            axis=-1,
        ).reshape(1, -1, 2)
        names = jnp.broadcast_to(names, (self.pairs, *names.shape[1:]))
        theta = GeneratedLengths().initial_theta(None)
        z = perturbations.sample(jnp.arange(self.pairs), names, theta)
        flat = np.concatenate([np.asarray(leaf) for leaf in z], axis=-1)
        shape = (self.pairs, self.windows, ordinals, flat.shape[-1])
        return np.float32(SIGMA) * flat.reshape(shape)

    def rows(self) -> np.ndarray:
        """The rows that episodes take, [pairs, episodes]."""
        episodes = jnp.arange(self.windows * self.length + 1)[None]
        episodes = jnp.broadcast_to(episodes, (self.pairs, episodes.shape[1]))
        data = DataKeys(self.seed, "pair")
        keys = data.episode(jnp.arange(self.pairs), jnp.int32(0), episodes)
        return np.asarray(jax.vmap(jax.vmap(row))(keys))

    def gradients(
        self, theta: np.ndarray, draws: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        """Summed over particles, one for each window, [windows, dim theta]."""
        total = np.zeros((self.windows, theta.size))
        for pair in range(self.pairs):
            if self.rule == "truncated_es":
                total += self._truncated(theta, draws[pair], rows[pair])
                continue
            for sign in (1.0, -1.0):
                eps = np.float32(sign) * draws[pair]
                total += self._member(theta, eps, rows[pair])
        return total / SIGMA**2

    def _member(
        self, theta: np.ndarray, draws: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        now = _Particle(xi=np.zeros(theta.size))
        total = np.zeros((self.windows, theta.size))
        for window in range(self.windows):
            ordinal = 0
            for position in range(self.length):
                begins = now.clock == 0
                if self.rule == "pes":
                    redrawn = position == 0
                else:
                    redrawn = now.clock % int(self.rule) == 0
                if begins:
                    now.xi = np.zeros(theta.size)
                if redrawn:
                    now.eps = draws[window, ordinal]
                    ordinal += 1
                if redrawn or begins:
                    now.xi = now.xi + now.eps
                weight = now.xi if self.accumulate else now.eps
                total[window] += weight * now.step(theta + now.eps, rows)
        return total

    def _truncated(
        self, theta: np.ndarray, draws: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        mean = _Particle()
        total = np.zeros((self.windows, theta.size))
        for window in range(self.windows):
            for sign in (1.0, -1.0):
                eps = np.float32(sign) * draws[window, 0]
                fork = dataclasses.replace(mean)
                for _ in range(self.length):
                    total[window] += eps * fork.step(theta + eps, rows)
            for _ in range(self.length):
                mean.step(theta, rows)
        return total
