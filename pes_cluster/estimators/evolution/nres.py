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

from pes_cluster.estimators.evolution.generalized_es import GeneralizedES
from pes_cluster.estimators.evolution.recipe import OnlineES, member


@dataclasses.dataclass(frozen=True)
class NRES(OnlineES):
    """Noise-Reuse Evolution Strategies. Fields: see `GeneralizedES`."""

    def generalized(self) -> GeneralizedES:
        """Returns this variant's member of the family."""
        return member(self, "episode", accumulate=False)
