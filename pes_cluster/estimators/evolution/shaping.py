"""Shaping: what the driver makes of all scores before they weight the perturbations.

The default is none (the identity), which alone is unbiased: a rank or a division by the
window's standard deviation changes the objective's weighting in time.
"""

import dataclasses
from typing import Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class Shaping:
    """A named shaping of the scores of one window.

    Attributes:
        type: ``centered_ranks`` (Salimans et al. 2017): ranks over all 2 x pairs
            scores, spread evenly over [-0.5, 0.5]. ``divide_by_std`` (Mania et al.
            2018): scores divided by their standard deviation.
    """

    type: Literal["centered_ranks", "divide_by_std"]

    def weights(self, scores: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Returns the weights that take the scores' place.

        Args:
            scores: Window losses, [pairs, 2]; a pair of which one is not a number does
                not count, and weighs nothing.
            active: False for padding, [pairs].
        """
        weights = np.zeros_like(scores)
        active = active & np.isfinite(scores).all(axis=1)
        chosen = scores[active]
        if self.type == "centered_ranks":
            weights[active] = _centered_ranks(chosen)
        else:
            deviation = chosen.std()
            weights[active] = chosen / deviation if deviation > 0 else 0.0
        return weights


def _centered_ranks(scores: np.ndarray) -> np.ndarray:
    order = np.argsort(scores, axis=None, kind="stable")
    ranks = np.empty(scores.size, scores.dtype)
    ranks[order] = np.linspace(-0.5, 0.5, scores.size, dtype=scores.dtype)
    return ranks.reshape(scores.shape)
