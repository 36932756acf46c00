"""Shaping: what the driver makes of all scores before they weight the perturbations.

The default is none (the identity), which alone is unbiased: a rank or a division by the
window's standard deviation changes the objective's weighting in time.
"""

import dataclasses
from typing import Literal, Protocol

import numpy as np


class Shape(Protocol):
    """Weights from all the scores of one window; pure."""

    def weights(self, scores: np.ndarray, active: np.ndarray) -> np.ndarray:
        """Returns the weights that take the scores' place, [pairs, 2].

        Args:
            scores: Window losses, [pairs, 2]; a pair of which one is not a number does
                not count, and weighs nothing.
            active: False for padding, [pairs].
        """
        ...


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
        """See `Shape`."""
        weights, counted = np.zeros_like(scores), _counted(scores, active)
        shaped = _centered_ranks if self.type == "centered_ranks" else _by_deviation
        weights[counted] = shaped(scores[counted])
        return weights


@dataclasses.dataclass(frozen=True)
class BestDirections:
    """The best b pairs alone, divided by the deviation of their 2b scores.

    Mania et al. 2018: a pair is as good as the lower of its two losses. What remains is
    scaled by N / b, so that the sum over the b pairs is divided by b in the end.

    Attributes:
        number: b; all of them where there are fewer.
    """

    number: int

    def weights(self, scores: np.ndarray, active: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        weights, counted = np.zeros_like(scores), _counted(scores, active)
        best = np.argsort(scores[counted].min(axis=1), kind="stable")[: self.number]
        chosen = np.flatnonzero(counted)[best]
        if len(chosen):
            shaped = _by_deviation(scores[chosen])
            weights[chosen] = shaped * (2 * counted.sum() / len(chosen))
        return weights


@dataclasses.dataclass(frozen=True)
class PerDeviation:
    """Weighs z where a shape weighs ``eps / sigma^2 = z / sigma``.

    Attributes:
        shape: Whose weights are scaled by sigma.
        sigma: Of the perturbations.
    """

    shape: Shape
    sigma: float

    def weights(self, scores: np.ndarray, active: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        shaped = self.shape.weights(scores, active)
        return shaped * np.asarray(self.sigma, scores.dtype)


def _counted(scores: np.ndarray, active: np.ndarray) -> np.ndarray:
    return active & np.isfinite(scores).all(axis=1)


def _centered_ranks(scores: np.ndarray) -> np.ndarray:
    order = np.argsort(scores, axis=None, kind="stable")
    ranks = np.empty(scores.size, scores.dtype)
    ranks[order] = np.linspace(-0.5, 0.5, scores.size, dtype=scores.dtype)
    return ranks.reshape(scores.shape)


def _by_deviation(scores: np.ndarray) -> np.ndarray:
    """Divided by the deviation; nothing where all are equal."""
    if not scores.size:
        return scores
    deviation = scores.std()
    return scores / deviation if deviation > 0 else np.zeros_like(scores)
