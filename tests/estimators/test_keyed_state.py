"""A task may keep a typed PRNG key in its state."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pes_cluster.cluster.leaves import from_arrays, to_arrays
from pes_cluster.estimators.evolution.pes import PES


@dataclasses.dataclass(frozen=True)
class Keyed:
    """A random walk whose key is carried in the state."""

    episode_length: int = 5

    def initial_theta(self, key: Any) -> jax.Array:
        return jnp.zeros(1, jnp.float32)

    def init(self, theta: jax.Array, key: jax.Array) -> Any:
        return key, jnp.zeros((), jnp.float32)

    def step(self, theta: jax.Array, state: Any, key: jax.Array) -> Any:
        own, position = state
        position = position + jax.random.normal(own, dtype=jnp.float32) * theta[0]
        return (jax.random.fold_in(own, 1), position), jnp.square(position - 1)


def test_a_block_with_keys_goes_on_from_its_arrays() -> None:
    task = Keyed()
    program = PES(num_particles=4, truncation_length=2, sigma=0.1).build(task, 0)
    theta = task.initial_theta(None)
    block, _ = program.advance(theta, program.init(theta, 0), 0)
    again = from_arrays(block, to_arrays(block))
    _, report = program.advance(theta, block, 1)
    _, repeated = program.advance(theta, again, 1)
    np.testing.assert_array_equal(report.gradient, repeated.gradient)
    assert np.any(np.asarray(report.gradient) != 0)
