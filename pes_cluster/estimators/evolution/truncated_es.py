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

from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import OnlineES, member


@dataclasses.dataclass(frozen=True)
class TruncatedES(OnlineES):
    """Truncated Evolution Strategies, the biased baseline.

    Fields: see `GeneralizedES`.
    """

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        return member(self, "window", accumulate=False, carry="mean")
