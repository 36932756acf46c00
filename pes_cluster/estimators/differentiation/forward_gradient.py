"""Forward gradients: the slope along a random direction, times the direction.

Baydin, Pearlmutter, Syme, Wood, Torr, *Gradients without Backpropagation*, 2022;
online, with the tangent of the state carried on: Silver et al., *Learning by
Directional Gradient Descent* (DODGE), ICLR 2022::

    u ~ N(0, I) for an episode,     g = mean_i (sum_{K steps} dL_t . u_i) u_i

One forward derivative takes the place of a pair of perturbed unrolls: it is NRES in the
limit of sigma -> 0. A trajectory draws its direction anew at the first window that
begins with an episode, so that its tangent never mixes two directions.

Letters: K `truncation_length`; N `num_particles` unperturbed trajectories, each along a
direction of its own.

Bias: none at fixed theta. Variance: (|theta| + 1) |g|^2 / N, where data have none. Cost
per step: N K steps with one forward derivative each; memory 2 N |s|.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pes_cluster.core import trees
from pes_cluster.core.blocks import BlockProgram, Report
from pes_cluster.core.credit import renamed
from pes_cluster.core.perturbations import Perturbations
from pes_cluster.core.task import Task, TaskError, Theta
from pes_cluster.estimators.differentiation.replicas import (
    Floats,
    OnlineGradient,
    Replicas,
    ReplicaWindows,
    floating,
    replica_windows,
    shared,
)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Tangent:
    """The direction in force, by its name, and what it has done to the state.

    Attributes:
        draw: (outer_step, ordinal) of the direction, [R, 1, 2].
        state: The derivative of the state's floating leaves along it, [R, 1, ...].
    """

    draw: jax.Array
    state: Floats


@dataclasses.dataclass(frozen=True)
class ForwardGradient(OnlineGradient):
    """Forward gradients along one direction in an episode. Fields: `OnlineGradient`."""

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        if getattr(task, "episode_length", None) is None:
            raise TaskError(
                f"task {type(task).__name__} never ends (episode_length: None), so a "
                "direction would never change; choose rtrl or uoro"
            )
        windows = replica_windows(self, task, seed, self.truncation_length)
        directions = Perturbations(seed, lambda step: jnp.ones(step.shape))
        return _Directional(windows, directions).program()


@dataclasses.dataclass(frozen=True)
class _Directional:
    windows: ReplicaWindows
    directions: Perturbations

    def program(self) -> BlockProgram:
        return self.windows.program(self.init, self.advance)

    def init(self, theta: Theta, block: Any) -> Replicas:
        replicas = self.windows.begin(theta, block)
        states = floating(replicas.trajectories.state)
        draw = jnp.zeros((self.windows.size, 1, 2), jnp.int32)
        memory = Tangent(draw, [jnp.zeros_like(leaf) for leaf in states])
        return dataclasses.replace(replicas, memory=memory)

    def advance(
        self, theta: Theta, replicas: Replicas, outer_step: Any
    ) -> tuple[Replicas, Report]:
        theta = jax.tree.map(jnp.asarray, theta)
        step = jnp.asarray(outer_step, jnp.int32)
        fresh = replicas.trajectories.inner_step == 0
        draw = renamed(replicas.memory.draw, fresh, step, jnp.zeros_like(step))
        drawn = self.directions.sample(replicas.replica_id, draw, theta)
        along = trees.narrowed(drawn, theta)
        thetas = jax.tree.map(
            lambda leaf, u: jnp.broadcast_to(leaf, u.shape), shared(theta), along
        )
        states = floating(replicas.trajectories.state)

        def window(thetas: Theta, states: Floats) -> Any:
            return self.windows.unrolled(replicas, step, thetas, states)

        tangents = (along, replicas.memory.state)
        (losses, _), (slopes, moved), after = jax.jvp(
            window, (thetas, states), tangents, has_aux=True
        )
        gradient = trees.weighted_sum(slopes[:, None], along)
        memory = Tangent(draw, moved)
        replicas = dataclasses.replace(replicas, trajectories=after, memory=memory)
        return replicas, self.windows.report(replicas, losses, gradient)
