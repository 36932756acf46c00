"""Evolution strategies over whole episodes.

Every estimate unrolls a whole episode from its begin (K = T)::

    g = 1/(N sigma^2) sum_i eps_i L_i(theta + eps_i; T steps)

The classic of Rechenberg (1973), in the antithetic form of Salimans et al. 2017.
Letters: as in PES. An episode that ends by itself ends the estimate; the rest of the
window counts nothing.

Bias: none for the smoothed loss E_eps L(theta + eps). Cost per step: N T inner steps,
of which T are sequential; nothing is kept between estimates.
"""

import dataclasses
from typing import Any, Literal, Self

from pes_cluster.core.blocks import BlockProgram
from pes_cluster.core.divergence import Divergence
from pes_cluster.core.keys import DataSharing
from pes_cluster.core.task import Task
from pes_cluster.estimators.evolution.fields import (
    ExponentialDecay,
    check_evolution,
)
from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import member, scaled
from pes_cluster.estimators.evolution.shaping import Shaping


@dataclasses.dataclass(frozen=True)
class FullES:
    """Evolution strategies over whole episodes. Fields: see `GeneralizedES`."""

    num_particles: int
    sigma: float | ExponentialDecay
    data: DataSharing = "pair"
    objective: Literal["sum", "final"] = "sum"
    pairs_per_block: int | None = None
    shaping: Shaping | None = None
    divergence: Divergence = "cap"
    loss_cap: float | None = None
    grown_from: int | None = None

    def __post_init__(self) -> None:
        check_evolution(self)

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        return member(self, "episode", accumulate=False)

    def build(self, task: Task[Any], seed: int) -> BlockProgram:
        """Returns the block program of a run; see `core.estimator.Estimator`."""
        return self.generalized().build(task, seed)

    def scaled(self, num_particles: int) -> Self:
        """Returns the recipe of the same run with another number of particles."""
        return scaled(self, num_particles)
