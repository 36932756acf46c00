"""Block states as plain named arrays: what is sent, saved and compared.

The structure is never stored. It is rebuilt from an example of the same configuration,
so nothing read from storage decides what is built, and no pickle is ever loaded.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Arrays = dict[str, np.ndarray]


class LeavesError(ValueError):
    """Named arrays that do not fit the example's structure."""


def to_arrays(tree: Any) -> Arrays:
    """Returns every leaf by its path; typed PRNG keys as their key data."""
    return {
        jax.tree_util.keystr(path): np.asarray(plain(leaf))
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def from_arrays(example: Any, arrays: Arrays) -> Any:
    """Rebuilds a tree of the example's structure from its named leaves.

    Raises:
        LeavesError: A leaf is missing, is not expected, or has another shape or dtype.
    """
    paths, structure = jax.tree_util.tree_flatten_with_path(example)
    names = [jax.tree_util.keystr(path) for path, _ in paths]
    if set(names) != set(arrays):
        odd = sorted(set(names) ^ set(arrays))
        raise LeavesError(f"leaves differ from the configuration's: {', '.join(odd)}")
    leaves = [
        _restore(name, leaf, arrays[name])
        for name, (_, leaf) in zip(names, paths, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def check_blocks(blocks: dict[int, Arrays] | None, num_blocks: int) -> None:
    """Refuses saved blocks that are not the run's; None are fresh ones.

    Raises:
        LeavesError: Blocks are missing, or there are too many.
    """
    if blocks is not None and sorted(blocks) != list(range(num_blocks)):
        raise LeavesError(f"{len(blocks)} blocks, not the configuration's {num_blocks}")


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def plain(leaf: Any) -> Any:
    """Returns a leaf as an array that can be sent: a typed key as its data."""
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _restore(name: str, example: Any, array: np.ndarray) -> Any:
    expected = jax.eval_shape(plain, example) if _is_key(example) else example
    if array.dtype.kind == "V" and array.dtype.itemsize == expected.dtype.itemsize:
        array = array.view(expected.dtype)  # numpy saves bfloat16 as two plain bytes.
    found = (tuple(array.shape), array.dtype)
    if found != (tuple(expected.shape), np.dtype(expected.dtype)):
        raise LeavesError(
            f"leaf {name} has shape {found[0]} and type {found[1]}, not "
            f"{tuple(expected.shape)} and {expected.dtype}"
        )
    if _is_key(example):
        # An abstract example has no implementation to ask for, an empty array has.
        implementation = jax.random.key_impl(jnp.empty(0, example.dtype))
        return jax.random.wrap_key_data(jnp.asarray(array), impl=implementation)
    return array
