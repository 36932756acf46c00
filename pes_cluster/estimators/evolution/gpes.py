"""Generalized Persistent Evolution Strategies.

Li et al., NeurIPS 2023 (see `nres`): the family between PES and NRES. A perturbation
lasts `noise_period` inner steps of its episode, counted from the episode's begin; the
switch may fall inside a window::

    every c steps: eps_i ~ N(0, sigma^2 I), xi_i += eps_i
    g = 1/(N sigma^2) sum_i sum_steps xi_i(step) L_i(step)

Letters: c `noise_period` (the paper's K), K `truncation_length` (the paper's W). c = K
is PES where K divides T; c >= T is NRES.

Bias: none, at fixed theta, for the loss smoothed with independent noise every c steps.
Cost: as PES.
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
class GPES:
    """Generalized Persistent Evolution Strategies. Fields: see `GeneralizedES`."""

    num_particles: int
    truncation_length: int
    sigma: float | ExponentialDecay
    noise_period: int
    data: DataSharing = "pair"
    start: Literal["lockstep", "staggered"] = "lockstep"
    objective: Literal["sum", "final"] = "sum"
    pairs_per_block: int | None = None
    shaping: Shaping | None = None

    def __post_init__(self) -> None:
        check_evolution(self)
        if self.noise_period < 1:
            raise ValueError(f"noise_period: {self.noise_period} must be at least 1")

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        return GeneralizedES(
            num_particles=self.num_particles,
            truncation_length=self.truncation_length,
            sigma=sigma_function(self.sigma),
            noise_period=self.noise_period,
            accumulate=True,
            data=self.data,
            start=self.start,
            objective=self.objective,
            pairs_per_block=self.pairs_per_block,
            shaping=self.shaping,
        ).build(task, seed)
