"""A character-level recurrent network: embedding, one LSTM layer, linear decoder.

Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000:

    f, i, o = sigmoid(..),  g = tanh(..)      of  W_x x + b_x + W_h h + b_h
    c <- f c + i g,         h <- o tanh(c),   logits = W_o h + b_o

in the form of the variance experiment of Vicol et al., ICML 2021: both affine maps have
a bias, the gates lie in the order f, i, o, candidate, and the embedding starts uniform.
With V symbols and 5 units in the embedding and the layer it has 11 V + 240 weights.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pes_cluster.models import mlp


class Network(NamedTuple):
    """The weights; V symbols, E embedding units, H hidden units.

    Attributes:
        embedding: [V, E].
        inputs: From the embedding to the gates, [E, 4 H].
        recurrent: From the hidden units to the gates, [H, 4 H].
        decoder: From the hidden units to logits, [H, V].
    """

    embedding: jax.Array
    inputs: mlp.Layer
    recurrent: mlp.Layer
    decoder: mlp.Layer


class Memory(NamedTuple):
    """What the layer remembers, each [..., H]; zeros before the first symbol."""

    hidden: jax.Array
    cell: jax.Array


def init(
    key: jax.Array, symbols: int, embedding: int, hidden: int, dtype: Any = jnp.float32
) -> Network:
    """Returns weights to start from; the key is consumed.

    The embedding is uniform in [-0.1, 0.1], the affine maps are LeCun's.
    """
    keys = jax.random.split(key, 4)
    return Network(
        jax.random.uniform(keys[0], (symbols, embedding), dtype, -0.1, 0.1),
        mlp.affine(keys[1], embedding, 4 * hidden, dtype),
        mlp.affine(keys[2], hidden, 4 * hidden, dtype),
        mlp.affine(keys[3], hidden, symbols, dtype),
    )


def start(network: Network, *lead: int) -> Memory:
    """Returns an empty memory with these leading axes."""
    size = network.recurrent.weight.shape[0]
    zeros = jnp.zeros((*lead, size), network.recurrent.weight.dtype)
    return Memory(zeros, zeros)


def step(
    network: Network, memory: Memory, symbol: jax.Array
) -> tuple[Memory, jax.Array]:
    """Reads one symbol, an integer [...], and returns logits [..., V] of the next."""
    seen = jnp.asarray(network.embedding)[symbol]
    gates = seen @ network.inputs.weight + network.inputs.bias
    gates += memory.hidden @ network.recurrent.weight + network.recurrent.bias
    forget, write, show, candidate = jnp.split(gates, 4, axis=-1)
    kept = jax.nn.sigmoid(forget) * memory.cell
    cell = kept + jax.nn.sigmoid(write) * jnp.tanh(candidate)
    hidden = jax.nn.sigmoid(show) * jnp.tanh(cell)
    logits = hidden @ network.decoder.weight + network.decoder.bias
    return Memory(hidden, cell), logits
