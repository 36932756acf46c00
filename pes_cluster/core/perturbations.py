"""Antithetic Gaussian perturbations from counter-based keys.

A draw is named by (seed, pair_id, outer_step, ordinal), where the ordinal counts the
draws that a pair makes within one window. So a perturbation can be made again anywhere
from three integers: NRES and ES-Single store a draw's name instead of P numbers, and a
shard that is rebuilt elsewhere meets the same noise. Draws and their sums are
float32 or wider, whatever theta is; they are never recovered from a perturbed theta.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pes_cluster.core import keys, trees
from pes_cluster.core.task import Theta

Sigma = Callable[[jax.Array], jax.Array]
Direction = Any  # Like theta, behind the axes [pairs, members]; or factors of that.


@dataclasses.dataclass(frozen=True)
class Perturbations:
    """Draws z ~ N(0, I); theta is perturbed to ``theta +- sigma(outer_step) z``.

    It also does the arithmetic of directions, draws and sums of draws, so that another
    noise may keep them in another form (`core.low_rank`).

    Attributes:
        seed: The run's seed.
        sigma: The noise scale as a function of the outer step at which a draw was made.
            A schedule stays unbiased because the accumulator sums z/sigma = eps/sigma^2
            of each draw, rather than dividing old noise by today's sigma^2.
    """

    seed: int
    sigma: Sigma

    def sample(self, pair_id: jax.Array, draw: jax.Array, theta: Theta) -> Direction:
        """Returns z of shape [pairs, members, ...].

        Args:
            pair_id: Integers of shape [pairs].
            draw: (outer_step, ordinal) of each draw, of shape [pairs, members, 2].
            theta: Gives shapes and dtypes.
        """
        root = keys.stream(self.seed, keys.NOISE)
        names = keys.folded(root, pair_id[:, None], draw[..., 0], draw[..., 1])
        return jax.vmap(jax.vmap(lambda key: _normal(key, theta)))(names)

    def dense(self, z: Direction) -> Theta:
        """Returns a direction as arrays [pairs, members, ...] of theta's shapes."""
        return z

    def thetas(self, theta: Theta, z: Direction, draw: jax.Array) -> Theta:
        """Returns theta of both signs, of shape [pairs, 2, ...].

        Both signs are formed as theta + (+-sigma z), so they are antithetic to the bit.
        """
        sigma = self.sigma(draw[..., 0])
        signs = jnp.array([1.0, -1.0])

        def perturb(leaf: jax.Array, noise: jax.Array) -> jax.Array:
            scale = (sigma * signs).astype(noise.dtype)
            return leaf + scale.reshape(scale.shape + (1,) * jnp.ndim(leaf)) * noise

        return trees.narrowed(jax.tree.map(perturb, theta, self.dense(z)), theta)

    def per_variance(self, z: Direction, draw: jax.Array) -> Direction:
        """Returns ``eps / sigma^2 = z / sigma`` of each draw, shaped like z."""
        inverse = 1.0 / self.sigma(draw[..., 0])

        def divide(noise: jax.Array) -> jax.Array:
            shape = inverse.shape + (1,) * (noise.ndim - inverse.ndim)
            return noise * inverse.astype(noise.dtype).reshape(shape)

        return jax.tree.map(divide, z)

    def nothing(self, theta: Theta, pairs: int, members: int) -> Direction:
        """Returns an accumulator before the first draw."""
        return trees.zeros(trees.widened(theta), pairs, members)

    def begun(self, fresh: Direction) -> Direction:
        """Returns an accumulator of one draw, with which an episode begins."""
        return fresh

    def added(self, accumulator: Direction, fresh: Direction) -> Direction:
        """Returns the accumulator with another draw of its episode."""
        return jax.tree.map(jnp.add, accumulator, fresh)

    def total(self, weights: jax.Array, direction: Direction) -> Theta:
        """Returns ``sum_pm weights[p, m] direction[p, m]``, shaped like theta."""
        return trees.weighted_sum(weights, direction)

    def norms(self, direction: Direction) -> jax.Array:
        """Returns the Euclidean norms over all leaves, [pairs, members]."""
        return trees.norms(direction, 2)


def normal(key: jax.Array, leaf: Any) -> jax.Array:
    """Returns z ~ N(0, I) shaped like a leaf of theta, widened."""
    return jax.random.normal(key, leaf.shape, leaf.dtype)


def _normal(key: jax.Array, theta: Theta) -> Theta:
    leaves, structure = jax.tree.flatten(trees.widened(theta))
    draws = [
        normal(jax.random.fold_in(key, index), leaf)
        for index, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, draws)
