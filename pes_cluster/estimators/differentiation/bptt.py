"""Backpropagation through time over whole episodes: the exact gradient.

Werbos 1990. Every step unrolls a whole episode (K = T) and differentiates all of it::

    g = mean_i d/dtheta sum_{t=1..T} L_t(s_t; theta)

Letters: N `num_particles` unperturbed trajectories; T `episode_length`.

Bias: none. Variance: only the data's; where the dynamics are chaotic the exact gradient
explodes. Cost per step: N T forward and backward steps; memory N T |s| within a step.
"""

import dataclasses
from typing import Any

from pes_cluster.core.blocks import BlockProgram
from pes_cluster.core.keys import DataSharing
from pes_cluster.core.task import Task
from pes_cluster.estimators.differentiation.replicas import (
    check_replicas,
    replica_windows,
)
from pes_cluster.estimators.differentiation.window_gradient import window_gradient


@dataclasses.dataclass(frozen=True)
class BPTT:
    """Backpropagation through whole episodes. Fields: see `ReplicaWindows`."""

    num_particles: int = 1
    data: DataSharing = "pair"

    def __post_init__(self) -> None:
        check_replicas(self)

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        return window_gradient(replica_windows(self, task, seed, None))
