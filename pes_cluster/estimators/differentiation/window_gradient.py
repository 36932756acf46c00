"""The gradient of a window's loss by reverse differentiation, behind TBPTT and BPTT."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from pes_cluster.core.blocks import BlockProgram, Report
from pes_cluster.core.task import Theta
from pes_cluster.estimators.differentiation.replicas import (
    Replicas,
    ReplicaWindows,
    floating,
    shared,
)


def window_gradient(windows: ReplicaWindows) -> BlockProgram:
    """``g = mean_i d/dtheta sum_{K steps} L_t(s_t; theta)``, the rest constant."""

    def advance(
        theta: Theta, replicas: Replicas, outer_step: Any
    ) -> tuple[Replicas, Report]:
        theta = jax.tree.map(jnp.asarray, theta)
        floats = floating(replicas.trajectories.state)

        def loss(theta: Theta) -> tuple[jax.Array, Any]:
            (losses, _), after = windows.unrolled(
                replicas, outer_step, shared(theta), floats
            )
            return jnp.sum(losses), (after, losses)

        gradient, (after, losses) = jax.grad(loss, has_aux=True)(theta)
        replicas = dataclasses.replace(replicas, trajectories=after)
        return replicas, windows.report(replicas, losses, gradient)

    return windows.program(windows.begin, advance)
