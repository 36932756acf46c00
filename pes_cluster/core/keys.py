"""Counter-based random keys: a draw depends on who asks and when, never on where.

Each purpose has a stream of its own, so that a perturbation never shares bits with a
minibatch. Within a stream a key is folded from integers that name the draw.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

THETA, NOISE, EPISODE, DATA, EVALUATION, OBJECTIVE = range(6)

DataSharing = Literal["pair", "block", "run"]


def stream(seed: int, purpose: int) -> jax.Array:
    """Returns the root key of one purpose of a run."""
    return jax.random.fold_in(jax.random.key(seed), purpose)


def folded(key: jax.Array, *counters: jax.Array | int) -> jax.Array:
    """Folds counters of one common shape into a key; returns keys of that shape."""
    arrays = jnp.broadcast_arrays(*(jnp.asarray(c, jnp.uint32) for c in counters))

    def fold(*values: jax.Array) -> jax.Array:
        result = key
        for value in values:
            result = jax.random.fold_in(result, value)
        return result

    for _ in range(arrays[0].ndim):
        fold = jax.vmap(fold)
    return fold(*arrays)


def theta_key(seed: int) -> jax.Array:
    """The key of `Task.initial_theta`."""
    return stream(seed, THETA)


def evaluation_key(seed: int, outer_step: int | jax.Array, index: int) -> jax.Array:
    """The key of evaluation episode `index` after `outer_step` updates."""
    return folded(stream(seed, EVALUATION), outer_step, index)


@dataclasses.dataclass(frozen=True)
class DataKeys:
    """Who shares initial states and minibatches; independent of every perturbation.

    Both signs of a pair always share them (common random numbers). ``pair``: keyed by
    (pair, episode, inner step), so that signs whose episodes end apart meet the same
    data at the same inner step. ``block`` and ``run``: one minibatch for all at (outer
    step, step in the window), which keeps minibatches unbatched and the first layer of
    a network one big matrix product.
    """

    seed: int
    sharing: DataSharing

    def _owner(self, pair_id: jax.Array, block: jax.Array) -> jax.Array:
        """Returns the id that is folded in, of shape [pairs, 1] or [1, 1]."""
        if self.sharing == "pair":
            return pair_id[:, None]
        owner = block if self.sharing == "block" else jnp.zeros_like(block)
        return owner.reshape(1, 1)

    def episode(
        self, pair_id: jax.Array, block: jax.Array, episode: jax.Array
    ) -> jax.Array:
        """Keys of initial states, of shape [pairs, members] or broadcastable to it."""
        return folded(stream(self.seed, EPISODE), self._owner(pair_id, block), episode)

    def objective(
        self, pair_id: jax.Array, block: jax.Array, episode: jax.Array
    ) -> jax.Array:
        """Keys of the final-loss objective: fixed for a whole episode."""
        return folded(
            stream(self.seed, OBJECTIVE), self._owner(pair_id, block), episode
        )

    def step(
        self,
        pair_id: jax.Array,
        block: jax.Array,
        episode: jax.Array,
        inner_step: jax.Array,
        outer_step: jax.Array,
        position: jax.Array,
    ) -> jax.Array:
        """Keys of one inner step, of shape [pairs, members], [pairs, 1] or [1, 1]."""
        root, owner = stream(self.seed, DATA), self._owner(pair_id, block)
        if self.sharing == "pair":
            return folded(root, owner, episode, inner_step)
        return folded(root, owner, outer_step, position)
