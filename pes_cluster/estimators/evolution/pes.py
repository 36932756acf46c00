"""Persistent Evolution Strategies.

Vicol, Metz, Sohl-Dickstein, *Unbiased Gradient Estimation in Unrolled Computation
Graphs with Persistent Evolution Strategies*, ICML 2021, Algorithm 2. Every particle
keeps its inner state and the sum xi of its perturbations since the episode began::

    eps_i ~ N(0, sigma^2 I), antithetic;  xi_i += eps_i
    g = 1/(N sigma^2) sum_i xi_i L_i(theta + eps_i; K steps)

Letters: N `num_particles` (both signs), K `truncation_length`, T `episode_length`, xi
`accumulator` (stored as xi / sigma^2, so that sigma may change).

Bias: none, at fixed theta, for the loss smoothed with independent noise in every
window; for a quadratic loss that is the gradient itself. Variance: grows at most
linearly with the number of windows T/K. Cost per step: N K inner steps; memory N (|s| +
|theta| / 2).
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
class PES:
    """Persistent Evolution Strategies. Fields: see `GeneralizedES`."""

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
            accumulate=True,
            data=self.data,
            start=self.start,
            objective=self.objective,
            pairs_per_block=self.pairs_per_block,
            shaping=self.shaping,
        ).build(task, seed)
