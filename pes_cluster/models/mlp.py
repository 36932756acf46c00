"""A multi-layer perceptron with ReLU units, as a list of layers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Layer(NamedTuple):
    """One affine map: `weight` [inputs, outputs] and `bias` [outputs]."""

    weight: jax.Array
    bias: jax.Array


def init(key: jax.Array, sizes: Sequence[int]) -> list[Layer]:
    """Returns layers between consecutive `sizes`, in float32; the key is consumed.

    LeCun's initialisation: weights are truncated normal (at two standard deviations)
    with standard deviation 1/sqrt(inputs) before truncation, biases are zero.
    """
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        affine(key, inputs, outputs)
        for key, inputs, outputs in zip(keys, sizes[:-1], sizes[1:], strict=True)
    ]


def apply(
    layers: Sequence[Layer], inputs: jax.Array, masks: Sequence[jax.Array] = ()
) -> jax.Array:
    """Maps inputs [..., sizes[0]] to logits [..., sizes[-1]]; the last is linear.

    Args:
        layers: From the inputs on.
        inputs: Any number of leading axes.
        masks: For each hidden layer its units' factors [units] before the ReLU, 0 to
            leave a unit out; empty for none.
    """
    *hidden, last = layers
    for index, layer in enumerate(hidden):
        units = inputs @ layer.weight + layer.bias
        inputs = jax.nn.relu(units * masks[index] if len(masks) else units)
    return inputs @ last.weight + last.bias


def affine(
    key: jax.Array, inputs: int, outputs: int, dtype: Any = jnp.float32
) -> Layer:
    """Returns one layer by LeCun's initialisation (see `init`); the key is consumed."""
    scale = jnp.asarray(inputs, dtype) ** -0.5
    normal = jax.random.truncated_normal(key, -2, 2, (inputs, outputs), dtype)
    return Layer(normal * scale, jnp.zeros(outputs, dtype))
