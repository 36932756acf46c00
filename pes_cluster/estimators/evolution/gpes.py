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

from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import OnlineES, member


@dataclasses.dataclass(frozen=True)
class GPES(OnlineES):
    """Generalized Persistent Evolution Strategies. Fields: see `GeneralizedES`."""

    noise_period: int = dataclasses.field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_period < 1:
            raise ValueError(f"noise_period: {self.noise_period} must be at least 1")

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        return member(self, self.noise_period, accumulate=True)
