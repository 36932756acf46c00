"""The MLP learned optimiser: one small network that moves every parameter by itself.

Metz et al., *Understanding and correcting pathologies in the training of learned
optimizers*, ICML 2019, at the sizes of the MLP optimiser in google/learned_optimization
that experiments on PES use. For each parameter p with gradient g the inputs are

    g, p, m_1 .. m_6          m_i <- d_i m_i + (1 - d_i) g
    tanh(t / tau_j - 1)       j = 1 .. 11

with d = (.1, .5, .9, .99, .999, .9999) and tau = (1, 3, 10, .., 1e5). Each of the first
eight is divided by its root mean square over the parameter's tensor. The network has
two hidden layers of 32 ReLU units and two outputs, a direction and a magnitude:

    p <- p - 0.001 direction exp(0.001 magnitude)

It has 19 inputs and 1,762 weights, the same for a network of any shape.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pes_cluster.models import mlp

Tree = Any

DECAYS = (0.1, 0.5, 0.9, 0.99, 0.999, 0.9999)
TIME_SCALES = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)
NUM_TENSOR_INPUTS = 2 + len(DECAYS)
NUM_INPUTS = NUM_TENSOR_INPUTS + len(TIME_SCALES)

_DECAYS = np.array(DECAYS)
_EPSILON = 1e-5  # Beside the mean square that an input is divided by.
_STEP = 0.001
_EXPONENT = 0.001


class Memory(NamedTuple):
    """What the optimiser remembers.

    Attributes:
        momenta: The parameters' tree, six averages of the gradient last: [..., 6].
        step: How many updates were made, int32.
    """

    momenta: Tree
    step: jax.Array


def init(key: jax.Array, hidden: tuple[int, ...] = (32, 32)) -> list[mlp.Layer]:
    """Returns weights to start from, in float32; the key is consumed."""
    return mlp.init(key, (NUM_INPUTS, *hidden, 2))


def start(params: Tree) -> Memory:
    """Returns the memory before the first update."""
    momenta = jax.tree.map(lambda p: jnp.zeros((*p.shape, len(DECAYS))), params)
    return Memory(momenta, jnp.int32(0))


def update(
    layers: list[mlp.Layer], gradient: Tree, memory: Memory, params: Tree
) -> tuple[Tree, Memory]:
    """Returns what is to be added to the parameters, and the memory after it."""
    decays, rests = _DECAYS.astype(np.float32), (1 - _DECAYS).astype(np.float32)
    momenta = jax.tree.map(
        lambda m, g: decays * m + rests * g[..., None],
        *(memory.momenta, gradient),
    )
    network = _at_time(layers, memory.step)
    updates = jax.tree.map(
        lambda g, p, m: _move(network, g, p, m), gradient, params, momenta
    )
    return updates, Memory(momenta, memory.step + 1)


def transformation(layers: list[mlp.Layer]) -> optax.GradientTransformation:
    """Returns the optimiser with these weights as optax has them.

    Its updates are added to the parameters, and its update needs them.
    """

    def move(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        if params is None:
            raise ValueError("the learned optimizer's update needs the parameters")
        return update(layers, updates, state, params)

    return optax.GradientTransformation(start, move)


def time_inputs(step: jax.Array) -> jax.Array:
    """``tanh(t / tau - 1)`` for every time scale, float32 [11]."""
    scales = np.array(TIME_SCALES, np.float32)
    return jnp.tanh(jnp.asarray(step, jnp.float32) / scales - 1)


def tensor_inputs(
    gradient: jax.Array, param: jax.Array, momenta: jax.Array
) -> jax.Array:
    """The inputs of each of a tensor's parameters, of unit mean square, [..., 8]."""
    pair = jnp.stack([gradient, param], axis=-1)
    inputs = jnp.concatenate([pair, momenta], axis=-1)
    over = tuple(range(param.ndim))
    square = jnp.mean(jnp.square(inputs), axis=over, keepdims=True)
    return inputs * jax.lax.rsqrt(square + _EPSILON)


def _at_time(layers: list[mlp.Layer], step: jax.Array) -> list[mlp.Layer]:
    """The network with the time inputs, which all share, in its first bias."""
    first, *others = layers
    tensor, time = jnp.split(first.weight, [NUM_TENSOR_INPUTS])
    return [mlp.Layer(tensor, first.bias + time_inputs(step) @ time), *others]


def _move(
    network: list[mlp.Layer], gradient: jax.Array, param: jax.Array, momenta: jax.Array
) -> jax.Array:
    """What is added to a tensor."""
    output = mlp.apply(network, tensor_inputs(gradient, param, momenta))
    direction, magnitude = output[..., 0], output[..., 1]
    return -_STEP * direction * jnp.exp(_EXPONENT * magnitude)
