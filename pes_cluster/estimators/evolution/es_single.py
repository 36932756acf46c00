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

from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import OnlineES, member


@dataclasses.dataclass(frozen=True)
class ESSingle(OnlineES):
    """ES-Single. Fields: see `GeneralizedES`."""

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        return member(self, "episode", accumulate=False)
