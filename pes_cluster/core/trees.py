"""The little pytree arithmetic that the estimators need."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any


def weighted_sum(weights: jax.Array, tree: Tree) -> Tree:
    """Returns ``sum_pm weights[p, m] tree[p, m, ...]``, leaf by leaf.

    Args:
        weights: Array of shape [pairs, members].
        tree: Leaves of shape [pairs, members, ...].
    """

    def reduce(leaf: jax.Array) -> jax.Array:
        flat = leaf.reshape((weights.size, -1))
        total = weights.reshape(-1).astype(leaf.dtype) @ flat
        return total.reshape(leaf.shape[2:])

    return jax.tree.map(reduce, tree)


def widened(tree: Tree) -> Tree:
    """Returns arrays of float32 or wider, in which draws and their sums are kept."""

    def widen(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        return array.astype(jnp.promote_types(array.dtype, jnp.float32))

    return jax.tree.map(widen, tree)


def narrowed(tree: Tree, like: Tree) -> Tree:
    """Returns arrays of the types that another tree has."""
    return jax.tree.map(lambda x, y: x.astype(jnp.asarray(y).dtype), tree, like)


def select(condition: jax.Array, chosen: Tree, other: Tree) -> Tree:
    """Chooses per trajectory: `condition` is broadcast from the left over each leaf."""

    def choose(a: jax.Array, b: jax.Array) -> jax.Array:
        extra = (1,) * (max(jnp.ndim(a), jnp.ndim(b)) - condition.ndim)
        return jnp.where(condition.reshape(condition.shape + extra), a, b)

    return jax.tree.map(choose, chosen, other)


def norms(tree: Tree, lead: int) -> jax.Array:
    """Returns the Euclidean norm over all leaves and all axes but the first `lead`."""
    squares = [
        jnp.sum(jnp.square(leaf), axis=tuple(range(lead, leaf.ndim)))
        for leaf in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares[1:], squares[0]))


def zeros(shapes: Tree, *lead: int) -> Tree:
    """Returns zeros shaped like `shapes` behind the leading axes; keys become key 0."""

    def zero(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            # A shape alone does not tell its implementation; an empty array does.
            implementation = jax.random.key_impl(jnp.empty(0, leaf.dtype))
            key = jax.random.key(0, impl=implementation)
            return jnp.broadcast_to(key, (*lead, *leaf.shape))
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        return jnp.zeros((*lead, *leaf.shape), dtype)

    return jax.tree.map(zero, shapes)


def sha256(tree: Tree) -> str:
    """Returns a hash of every leaf's path, dtype, shape and bytes, in path order."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        header = f"{jax.tree_util.keystr(path)}|{array.dtype}|{array.shape}|"
        digest.update(header.encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
