"""Dividing old noise by today's sigma^2 is biased; each draw by its own is not.

The package's side is `pes_sigma_schedule` in `test_expectations`.
"""

import numpy as np
import pytest

WINDOWS, THETA = 5, 0.4


def _estimates(today: bool, pairs: int, seed: int) -> np.ndarray:
    """Loss s_k^2 / 2 after each window, s_k = 0.9 s_{k-1} + theta, s_0 = 1."""
    random = np.random.default_rng(seed)
    s, signs = np.ones((2, pairs)), np.array([[1.0], [-1.0]])
    xi, scaled, total = np.zeros(pairs), np.zeros(pairs), np.zeros(pairs)
    for k in range(WINDOWS):
        sigma = 0.3 * 0.7**k
        eps = sigma * random.normal(size=pairs)
        s = 0.9 * s + THETA + signs * eps
        xi, scaled = xi + eps, scaled + eps / sigma**2
        weight = xi / sigma**2 if today else scaled
        total += weight * (s[0] ** 2 - s[1] ** 2) / 4
    return total


@pytest.mark.statistical
def test_old_noise_by_the_present_sigma_is_seen(test_seed: int) -> None:
    state, influence, exact = 1.0, 0.0, 0.0
    for _ in range(WINDOWS):
        state, influence = 0.9 * state + THETA, 0.9 * influence + 1
        exact += state * influence
    scores = []
    for today in (False, True):
        samples = _estimates(today, 40_000, test_seed)
        error = samples.std() / np.sqrt(samples.size)
        scores.append((samples.mean() - exact) / error)
    print(f"own sigma: z {scores[0]:.1f}; present sigma: z {scores[1]:.0f}")
    assert abs(scores[0]) < 5
    assert abs(scores[1]) > 8
