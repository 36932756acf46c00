"""Noise-Reuse Evolution Strategies.

Li, Harrison, Sohl-Dickstein, Smith, Metz, *Variance-Reduced Gradient Estimation via
Noise-Reuse in Online Evolution Strategies*, NeurIPS 2023. One perturbation lasts a
whole episode, so no accumulator is needed::

    g = 1/(N sigma^2) sum_i eps_i L_i(theta + eps_i; K steps)

Letters: the paper's W is our K `truncation_length`, its K our noise period (here T).
What a pair keeps is the name of its draw, two integers, not the draw. An episode that
begins inside a window draws there.

Bias: none, at fixed theta, for the smoothed loss E_eps L(theta + eps), which is not
PES's target unless the loss is quadratic. Cost per step: N K inner steps; memory N |s|.
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
class NRES:
    """Noise-Reuse Evolution Strategies. Fields: see `GeneralizedES`."""

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
