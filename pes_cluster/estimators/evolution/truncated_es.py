"""Truncated Evolution Strategies, the biased baseline.

Vicol et al. 2021, Algorithm 1. Both signs start every window from one mean state, which
is then carried on by K more steps with the unperturbed theta::

    g = 1/(N sigma^2) sum_i eps_i L_i(theta + eps_i; K steps from the mean state)

Letters: as in PES. The mean state is one for each pair; where a block's pairs see the
same data (`data: block | run`, lockstep) it is one for the block.

Bias: that of truncation: for a quadratic loss its expectation is the TBPTT gradient.
Cost per step: N K inner steps and K for each mean state; memory |s| for each mean
state.
"""

import dataclasses
from typing import Any, Literal

from pes_cluster.core.blocks import BlockProgram
from pes_cluster.core.keys import DataSharing
from pes_cluster.core.task import Task
from pes_cluster.estimators.evolution.fields import (
    ExponentialDecay,
    check_evolution,
    sigma_function,
)
from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.shaping import Shaping


@dataclasses.dataclass(frozen=True)
class TruncatedES:
    """Truncated Evolution Strategies, the biased baseline.

    Fields: see `GeneralizedES`.
    """

    num_particles: int
    truncation_length: int
    sigma: float | ExponentialDecay
    data: DataSharing = "pair"
    start: Literal["lockstep", "staggered"] = "lockstep"
    objective: Literal["sum", "final"] = "sum"
    pairs_per_block: int | None = None
    shaping: Shaping | None = None

    def __post_init__(self) -> None:
        check_evolution(self)

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        return GeneralizedES(
            num_particles=self.num_particles,
            truncation_length=self.truncation_length,
            sigma=sigma_function(self.sigma),
            noise_period="window",
            accumulate=False,
            carry="mean",
            data=self.data,
            start=self.start,
            objective=self.objective,
            pairs_per_block=self.pairs_per_block,
            shaping=self.shaping,
        ).build(task, seed)
