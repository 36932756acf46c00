"""Truncated backpropagation through time.

Williams and Peng 1990. The state that enters a window is a constant::

    g = mean_i d/dtheta sum_{K steps of the window} L_t(s_t; theta)

Letters: K `truncation_length`; N `num_particles` unperturbed trajectories. With
`window_loss: last` only the window's last loss is differentiated (the
influence-balancing experiment of Vicol et al. 2021).

Bias: that of truncation, unless K = T. Variance: only the data's. Cost per step: N K
forward and backward steps; memory N K |s| within a window, N |s| between.
"""

import dataclasses
from typing import Any

from pes_cluster.core.blocks import BlockProgram
from pes_cluster.core.keys import DataSharing
from pes_cluster.core.task import Task
from pes_cluster.estimators.differentiation.replicas import (
    WindowLoss,
    check_replicas,
    replica_windows,
)
from pes_cluster.estimators.differentiation.window_gradient import window_gradient


@dataclasses.dataclass(frozen=True)
class TBPTT:
    """Truncated backpropagation through time. Fields: see `ReplicaWindows`."""

    truncation_length: int
    num_particles: int = 1
    data: DataSharing = "pair"
    window_loss: WindowLoss = "sum"

    def __post_init__(self) -> None:
        check_replicas(self)

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        return window_gradient(
            replica_windows(self, task, seed, self.truncation_length)
        )
