"""OpenAI's evolution strategies: whole episodes, weighed by their ranks.

Salimans, Ho, Chen, Sidor, Sutskever, *Evolution Strategies as a Scalable Alternative to
Reinforcement Learning*, 2017, Algorithm 2 with the shaping of its section 2.1::

    g = 1/N sum_pairs (rank+ - rank-) z,        ranks over all N losses, in [-.5, .5]

with theta perturbed by +-sigma z. The published form lets Adam minimise g and adds
``l2 theta`` to it: `outer.optimizer: {type: adam, l2: 0.005}`.

Letters: as in full ES; m in the paper's code is N/2 here.

Bias: estimates no gradient. Ranks ignore how much better a loss is, so nothing is
blown up by outliers, but the fixed points are not the smoothed loss's. Cost per step:
N T inner steps, of which T are sequential, and a second round trip.
"""

import dataclasses

from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import EvolutionStrategy, member
from pes_cluster.estimators.evolution.shaping import PerDeviation, Shaping


@dataclasses.dataclass(frozen=True)
class OpenAIES(EvolutionStrategy):
    """Whole episodes, weighed by their centred ranks. Fields: see `GeneralizedES`."""

    sigma: float

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        shaping = PerDeviation(Shaping("centered_ranks"), self.sigma)
        return member(self, "episode", accumulate=False, shaping=shaping)
