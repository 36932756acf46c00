"""ES-Single.

Vicol, *Low-Variance Gradient Estimation in Unrolled Computation Graphs with ES-Single*,
ICML 2023. A single perturbation is drawn for each particle at the begin of an episode
and kept to its end::

    g = 1/(N sigma^2) sum_i eps_i L_i(theta + eps_i; K steps)

With antithetic pairs it is the estimator that NRES found independently; both names are
kept, since both papers' settings are. Letters: as in PES.

Bias: none, at fixed theta, for the smoothed loss E_eps L(theta + eps); for a quadratic
loss its variance does not grow with the number of windows. Cost: as NRES.
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
class ESSingle:
    """ES-Single. Fields: see `GeneralizedES`."""

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
            noise_period="episode",
            accumulate=False,
            data=self.data,
            start=self.start,
            objective=self.objective,
            pairs_per_block=self.pairs_per_block,
            shaping=self.shaping,
        ).build(task, seed)
