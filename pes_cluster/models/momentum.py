"""Gradient descent with momentum, each tensor at a rate and a momentum of its own."""

from typing import Any

import jax

Tree = Any


def step(
    weights: Tree,
    buffers: Tree,
    gradient: Tree,
    rates: Tree,
    momenta: Tree,
    weight_decay: float = 0.0,
) -> tuple[Tree, Tree]:
    """One step in PyTorch's form, leaf by leaf.

        m <- momentum m + gradient + weight_decay w,        w <- w - rate m

    Args:
        weights: Any pytree of arrays, w.
        buffers: Shaped like the weights, m; zero before the first step.
        gradient: Shaped like the weights.
        rates: One scalar, or a tree of the weights' structure with a scalar each.
        momenta: Likewise.
        weight_decay: Added to the gradient, times the weights.

    Returns:
        The new weights and buffers.
    """
    rates, momenta = _spread(rates, weights), _spread(momenta, weights)
    buffers = jax.tree.map(
        lambda m, g, w, momentum: momentum * m + g + weight_decay * w,
        *(buffers, gradient, weights, momenta),
    )
    weights = jax.tree.map(lambda w, m, rate: w - rate * m, weights, buffers, rates)
    return weights, buffers


def _spread(value: Tree, weights: Tree) -> Tree:
    """Returns a tree of the weights' structure; a single value stands for all."""
    if jax.tree.structure(value) == jax.tree.structure(weights):
        return value
    return jax.tree.map(lambda _: value, weights)
