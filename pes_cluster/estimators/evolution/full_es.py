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

from pes_cluster.estimators.evolution.fields import ExponentialDecay
from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import EvolutionStrategy, member
from pes_cluster.estimators.evolution.shaping import Shaping


@dataclasses.dataclass(frozen=True)
class FullES(EvolutionStrategy):
    """Evolution strategies over whole episodes. Fields: see `GeneralizedES`."""

    sigma: float | ExponentialDecay
    shaping: Shaping | None = dataclasses.field(default=None, kw_only=True)

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        return member(self, "episode", accumulate=False)
