"""Where thetas are drawn from."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.core.task import Task, TaskError, Theta

Range = tuple[float, float]
Ranges = Range | dict[str, Range] | None


def drawing(task: Task[Any], ranges: Ranges) -> Callable[[jax.Array], Theta]:
    """Returns ``key -> theta``.

    Raises:
        TaskError: There are no ranges, and the task's `initial_theta` is always the
            same.
        ValueError: The ranges do not fit theta; the message begins with the field.
    """
    example = task.initial_theta(jax.random.key(0))
    if ranges is None:
        _check_varies(task, example)
        return task.initial_theta
    names = _names(example)
    by_leaf = (
        [ranges] * len(names) if isinstance(ranges, tuple) else _listed(ranges, names)
    )
    for low, high in by_leaf:
        if not (np.isfinite([low, high]).all() and low < high):
            raise ValueError(f"ranges: [{low}, {high}] must be [low, high], low < high")
    leaves, structure = jax.tree.flatten(example)

    def draw(key: jax.Array) -> Theta:
        drawn = [
            jax.random.uniform(
                jax.random.fold_in(key, index),
                jnp.shape(leaf),
                jnp.asarray(leaf).dtype,
                *interval,
            )
            for index, (leaf, interval) in enumerate(zip(leaves, by_leaf, strict=True))
        ]
        return jax.tree.unflatten(structure, drawn)

    return draw


def _names(theta: Theta) -> list[str]:
    return [
        jax.tree_util.keystr(path, simple=True, separator=".")
        for path, _ in jax.tree_util.tree_leaves_with_path(theta)
    ]


def _listed(ranges: dict[str, Range], names: list[str]) -> list[Range]:
    if set(ranges) != set(names):
        if names == [""]:
            raise ValueError("ranges: theta is one array; give it one [low, high]")
        odd = ", ".join(sorted(set(ranges) ^ set(names)))
        raise ValueError(
            f"ranges: theta's leaves are {', '.join(names)}; missing or unknown: {odd}"
        )
    return [ranges[name] for name in names]


def _check_varies(task: Task[Any], example: Theta) -> None:
    other = task.initial_theta(jax.random.key(1))
    pairs = zip(jax.tree.leaves(example), jax.tree.leaves(other), strict=True)
    if all(np.array_equal(one, two) for one, two in pairs):
        raise TaskError(
            f"task {type(task).__name__} begins with one theta whatever the key; give "
            "the estimator ranges to draw from"
        )
