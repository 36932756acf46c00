"""Real-time recurrent learning: the exact gradient, carried forward.

Williams and Zipser 1989. With the Jacobian G = ds/dtheta of the inner state::

    G_t = (df/ds) G_{t-1} + df/dtheta,      G = ds_0/dtheta where an episode begins
    g   = mean_i sum_{K steps of the window} (dL_t/ds_t) G_t + dL_t/dtheta

G is carried over the windows' borders, so their gradients sum to the episode's. It is
advanced by one forward derivative for each entry of theta, whatever the state holds;
integers and keys in it have none.

Letters: K `truncation_length`, 1 in the paper; N `num_particles` unperturbed
trajectories; P entries of theta.

Bias: none at fixed theta; while theta moves, G also stems from the thetas before.
Variance: only the data's. Cost per step: N K steps with P forward derivatives each;
memory N P |s|, whatever K is.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pes_cluster.core.blocks import BlockProgram, Report
from pes_cluster.core.task import Task, Theta
from pes_cluster.estimators.differentiation.replicas import (
    Floats,
    OnlineGradient,
    Replicas,
    ReplicaWindows,
    floating,
    replica_windows,
    shared,
)

COLUMN = 2  # The axis of the memory that counts the entries of theta: [R, 1, P, ...].


@dataclasses.dataclass(frozen=True)
class RTRL(OnlineGradient):
    """Real-time recurrent learning. Fields: see `OnlineGradient`."""

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        windows = replica_windows(self, task, seed, self.truncation_length)
        return _Forward(windows).program()


@dataclasses.dataclass(frozen=True)
class _Forward:
    windows: ReplicaWindows

    def program(self) -> BlockProgram:
        return self.windows.program(self.init, self.advance)

    def init(self, theta: Theta, block: Any) -> Replicas:
        replicas = self.windows.begin(theta, block)
        columns = ravel_pytree(theta)[0].size

        def nothing(leaf: jax.Array) -> jax.Array:
            shape = (*leaf.shape[:2], columns, *leaf.shape[2:])
            return jnp.zeros(shape, leaf.dtype)

        states = floating(replicas.trajectories.state)
        return dataclasses.replace(replicas, memory=[nothing(x) for x in states])

    def advance(
        self, theta: Theta, replicas: Replicas, outer_step: Any
    ) -> tuple[Replicas, Report]:
        flat, unflatten = ravel_pytree(theta)
        states = floating(replicas.trajectories.state)

        def window(flat: jax.Array, states: Floats) -> Any:
            thetas = shared(unflatten(flat))
            return self.windows.unrolled(replicas, outer_step, thetas, states)

        def along(entry: jax.Array, influence: Floats) -> Any:
            """The window's values, and their derivatives along one entry of theta."""
            tangents = (entry, influence)
            seen, moved, after = jax.jvp(window, (flat, states), tangents, has_aux=True)
            return (seen[0], after), moved

        basis = jnp.eye(flat.size, dtype=flat.dtype)
        each = jax.vmap(along, in_axes=(0, COLUMN), out_axes=(None, (0, COLUMN)))
        (losses, after), (slopes, memory) = each(basis, replicas.memory)
        gradient = unflatten(jnp.sum(slopes, axis=1).astype(flat.dtype))
        replicas = dataclasses.replace(replicas, trajectories=after, memory=memory)
        return replicas, self.windows.report(replicas, losses, gradient)
