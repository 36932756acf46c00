"""Persistent Evolution Strategies.

Vicol, Metz, Sohl-Dickstein, *Unbiased Gradient Estimation in Unrolled Computation
Graphs with Persistent Evolution Strategies*, ICML 2021, Algorithm 2. Every particle
keeps its inner state and the sum xi of its perturbations since the episode began::

    eps_i ~ N(0, sigma^2 I), antithetic;  xi_i += eps_i
    g = 1/(N sigma^2) sum_i xi_i L_i(theta + eps_i; K steps)

Letters: N `num_particles` (both signs), K `truncation_length`, T `episode_length`, xi
`accumulator` (stored as xi / sigma^2, so that sigma may change).

Bias: none, at fixed theta, for the loss smoothed with independent noise in every
window; for a quadratic loss that is the gradient itself. Variance: grows at most
linearly with the number of windows T/K. Cost per step: N K inner steps; memory N (|s| +
|theta| / 2).
"""

import dataclasses

from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import OnlineES, member


@dataclasses.dataclass(frozen=True)
class PES(OnlineES):
    """Persistent Evolution Strategies. Fields: see `GeneralizedES`."""

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        return member(self, "window", accumulate=True)
