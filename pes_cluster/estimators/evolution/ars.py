"""Augmented random search, the versions without observation statistics.

Mania, Guy, Recht, *Simple Random Search of Static Policies is Competitive for
Reinforcement Learning*, 2018, Algorithm 1. Of N/2 directions the b count whose better
sign is best, divided by the standard deviation of their 2b losses::

    g = 1/(b std) sum_best (L+ - L-) z,         L(theta +- sigma z) over whole episodes

The published step is plain gradient descent on g: `outer.optimizer: {type: sgd}`. V1
keeps all directions (b = N/2, `top_directions: null`), V1-t the best of them.

Letters: nu is our `sigma`, alpha the learning rate, b `top_directions`, N/2 the paper's
N.

Bias: estimates no gradient: its length is that of a direction, however flat the loss
is, and the best directions are chosen by their losses. Cost per step: N T inner steps,
of which T are sequential, and a second round trip.
"""

import dataclasses

from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import EvolutionStrategy, member
from pes_cluster.estimators.evolution.shaping import BestDirections, PerDeviation


@dataclasses.dataclass(frozen=True)
class ARS(EvolutionStrategy):
    """Augmented random search, V1 and V1-t. Other fields: see `GeneralizedES`.

    Attributes:
        top_directions: b, how many of the N/2 directions count; None: all.
    """

    sigma: float
    top_directions: int | None = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        directions = self.num_particles // 2
        top = self.top_directions
        if top is not None and not 1 <= top <= directions:
            raise ValueError(
                f"top_directions: {top} must lie between 1 and the "
                f"{directions} directions of num_particles: {self.num_particles}"
            )

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        number = self.top_directions or self.num_particles // 2
        shaping = PerDeviation(BestDirections(number), self.sigma)
        return member(self, "episode", accumulate=False, shaping=shaping)
