"""Perturbations of low rank for matrices, whose sums are kept as factors.

Sarkar et al., *Evolution Strategies at the Hyperscale* (EGGROLL), 2025. A matrix leaf
of theta, [a, b], is perturbed by sigma z with

    z = A B^T / sqrt(r),        A [a, r], B [b, r] ~ N(0, 1)

and every other leaf by sigma z, z ~ N(0, I). E[vec z vec z^T] = I at every rank, so an
estimator that is unbiased to first order in z z^T with full noise is so with this. Its
variance is larger: with one pair and a linear loss of gradient G,

    E |(G . z) z|^2 = |G|^2 ((a + 2) (b + 2) / r + (1 - 1/r) (a b + 2))

The sum of an episode's draws has rank n r after n of them, never r: its factors are
those of the draws side by side, [a, n r] and [b, n r], newest first. An episode has a
largest number of draws, which bounds them; where they would not be smaller than the sum
itself, or episodes never end, the sum is kept instead.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pes_cluster.core import keys, trees
from pes_cluster.core.perturbations import Direction, Perturbations, normal
from pes_cluster.core.task import Theta

_EXACT = jax.lax.Precision.HIGHEST  # What perturbs and what credits must be one.


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Factors:
    """A matrix ``left right^T`` of each pair and member.

    Attributes:
        left: [P, M, a, rank].
        right: [P, M, b, rank].
    """

    left: jax.Array
    right: jax.Array

    def product(self) -> jax.Array:
        """The matrices themselves, [P, M, a, b]."""
        return jnp.einsum("...ar,...br->...ab", self.left, self.right, precision=_EXACT)


@dataclasses.dataclass(frozen=True)
class LowRankPerturbations(Perturbations):
    """Draws of low rank for matrices, full draws for other leaves.

    Attributes:
        rank: r, of one draw.
        draws: The most that an episode can have; None where it has no end.
    """

    rank: int
    draws: int | None

    def sample(self, pair_id: jax.Array, draw: jax.Array, theta: Theta) -> Direction:
        """Returns z: `Factors` in the place of matrices."""
        root = keys.stream(self.seed, keys.NOISE)
        names = keys.folded(root, pair_id[:, None], draw[..., 0], draw[..., 1])
        leaves, structure = jax.tree.flatten(trees.widened(theta))

        def one(key: jax.Array) -> Direction:
            drawn = [
                self._drawn(jax.random.fold_in(key, index), leaf)
                for index, leaf in enumerate(leaves)
            ]
            return jax.tree.unflatten(structure, drawn)

        return jax.vmap(jax.vmap(one))(names)

    def dense(self, z: Direction) -> Theta:
        """See `Perturbations`."""
        return _map(_product, z)

    def per_variance(self, z: Direction, draw: jax.Array) -> Direction:
        """See `Perturbations`: one of two factors is divided."""
        lefts = super().per_variance(_map(_left, z), draw)
        return _map(_with_left, z, lefts)

    def nothing(self, theta: Theta, pairs: int, members: int) -> Direction:
        """See `Perturbations`."""

        def zero(leaf: Any) -> Any:
            shape = jnp.shape(leaf)
            if not is_matrix(leaf) or not self._keeps_factors(*shape):
                return jnp.zeros((pairs, members, *shape), leaf.dtype)
            lead, width = (pairs, members), self._width
            return Factors(
                jnp.zeros((*lead, shape[0], width), leaf.dtype),
                jnp.zeros((*lead, shape[1], width), leaf.dtype),
            )

        return jax.tree.map(zero, trees.widened(theta))

    def begun(self, fresh: Direction) -> Direction:
        """See `Perturbations`: room for the draws to come."""

        def widened(node: Any) -> Any:
            if not isinstance(node, Factors):
                return node
            if not self._keeps_factors(node.left.shape[-2], node.right.shape[-2]):
                return node.product()
            more = [(0, 0)] * 3 + [(0, self._width - self.rank)]
            return jax.tree.map(lambda leaf: jnp.pad(leaf, more), node)

        return _map(widened, fresh)

    def added(self, accumulator: Direction, fresh: Direction) -> Direction:
        """See `Perturbations`: beside the others; what it displaces is empty."""

        def pushed(old: Any, new: Any) -> Any:
            if isinstance(old, Factors):
                return jax.tree.map(self._pushed, old, new)
            return old + _product(new)

        return _map(pushed, accumulator, fresh)

    def total(self, weights: jax.Array, direction: Direction) -> Theta:
        """See `Perturbations`: one product over all pairs, none of them formed."""

        def reduce(node: Any) -> jax.Array:
            if not isinstance(node, Factors):
                return trees.weighted_sum(weights, node)
            weighted = weights.astype(node.left.dtype)[..., None, None] * node.left
            return jnp.einsum("pmar,pmbr->ab", weighted, node.right, precision=_EXACT)

        return _map(reduce, direction)

    def norms(self, direction: Direction) -> jax.Array:
        """See `Perturbations`."""

        def square(node: Any) -> jax.Array:
            if not isinstance(node, Factors):
                return jnp.square(trees.norms(node, 2))
            inner = [
                jnp.einsum("...ar,...as->...rs", x, x, precision=_EXACT)
                for x in (node.left, node.right)
            ]
            # Rounding may leave a vanishing sum below 0.
            return jnp.maximum(jnp.sum(inner[0] * inner[1], axis=(-2, -1)), 0)

        nodes = jax.tree.leaves(direction, is_leaf=_is_factors)
        squares = [square(node) for node in nodes]
        return jnp.sqrt(sum(squares[1:], squares[0]))

    @property
    def _width(self) -> int:
        return self.rank * (self.draws or 0)

    def _keeps_factors(self, rows: int, columns: int) -> bool:
        """Whether an episode's factors are smaller than the matrix."""
        smaller = self._width * (rows + columns) < rows * columns
        return self.draws is not None and smaller

    def _drawn(self, key: jax.Array, leaf: Any) -> Any:
        if not is_matrix(leaf):
            return normal(key, leaf)
        (rows, columns), dtype = jnp.shape(leaf), leaf.dtype
        keys_of = jax.random.fold_in(key, 0), jax.random.fold_in(key, 1)
        left = jax.random.normal(keys_of[0], (rows, self.rank), dtype)
        right = jax.random.normal(keys_of[1], (columns, self.rank), dtype)
        return Factors(left / self.rank**0.5, right)

    def _pushed(self, old: jax.Array, new: jax.Array) -> jax.Array:
        return jnp.concatenate([new, old[..., : -self.rank]], axis=-1)


def is_matrix(leaf: Any) -> bool:
    """Whether a leaf of theta is perturbed by a product of factors."""
    return jnp.ndim(leaf) == 2


def _is_factors(node: Any) -> bool:
    return isinstance(node, Factors)


def _map(function: Any, direction: Direction, *others: Direction) -> Any:
    """Maps over a direction's leaves, each of its `Factors` as one."""
    return jax.tree.map(function, direction, *others, is_leaf=_is_factors)


def _product(node: Any) -> jax.Array:
    return node.product() if isinstance(node, Factors) else node


def _left(node: Any) -> jax.Array:
    return node.left if isinstance(node, Factors) else node


def _with_left(node: Any, left: jax.Array) -> Any:
    if not isinstance(node, Factors):
        return left
    return dataclasses.replace(node, left=left)
