"""The outer optimisers: what one update does to theta, by hand."""

from typing import Any

import jax
import numpy as np
import pytest

from pes_cluster import outer

THETA = {"w": np.array([1.0, -2.0], np.float32), "b": np.float32(0.5)}
SUMS = {"w": np.array([6.0, 0.0], np.float32), "b": np.float32(-8.0)}
WEIGHT = np.float32(2)  # The gradient is (3, 0, -4): its norm is 5.


def updated(optimizer: outer.Optimizer, times: int = 1) -> tuple[Any, float]:
    state, norm = outer.start(optimizer, THETA), 0.0
    step = jax.jit(outer.update(optimizer))
    for _ in range(times):
        state, value = step(state, SUMS, WEIGHT)
        norm = float(value)
    return jax.tree.map(np.asarray, state.theta), norm


def test_sgd_moves_against_the_mean_gradient() -> None:
    theta, norm = updated(outer.SGD(0.1))
    np.testing.assert_allclose(theta["w"], [0.7, -2.0], rtol=1e-6)
    np.testing.assert_allclose(theta["b"], 0.9, rtol=1e-6)
    np.testing.assert_allclose(norm, 5.0, rtol=1e-6)


def test_momentum_adds_what_was_there_before() -> None:
    theta, _ = updated(outer.SGD(0.1, momentum=0.5), times=2)
    np.testing.assert_allclose(theta["w"][0], 1.0 - 0.3 - 0.45, rtol=1e-5)


def test_clipping_keeps_the_direction_and_reports_the_norm_before_it() -> None:
    theta, norm = updated(outer.SGD(0.1, clip_norm=1.0))
    np.testing.assert_allclose(theta["w"][0], 1.0 - 0.1 * 3 / 5, rtol=1e-6)
    np.testing.assert_allclose(theta["b"], 0.5 + 0.1 * 4 / 5, rtol=1e-6)
    np.testing.assert_allclose(norm, 5.0, rtol=1e-6)


def test_adams_first_step_is_the_learning_rate_along_the_sign() -> None:
    theta, _ = updated(outer.Adam(0.1))
    np.testing.assert_allclose(theta["w"], [0.9, -2.0], rtol=1e-5)
    np.testing.assert_allclose(theta["b"], 0.6, rtol=1e-5)


def test_adams_l2_is_added_to_the_gradient() -> None:
    """The first step goes along the sign of 3 + 10, 0 - 20 and -4 + 5."""
    theta, norm = updated(outer.Adam(0.1, l2=10.0))
    np.testing.assert_allclose(theta["w"], [0.9, -1.9], rtol=1e-5)
    np.testing.assert_allclose(theta["b"], 0.4, rtol=1e-5)
    np.testing.assert_allclose(norm, 5.0, rtol=1e-6)
    with pytest.raises(ValueError, match="l2: -1"):
        outer.Adam(0.1, l2=-1.0)


def test_rmsprop_divides_by_the_root_mean_square() -> None:
    theta, _ = updated(outer.RMSProp(0.1, decay=0.9))
    np.testing.assert_allclose(theta["w"][0], 1.0 - 0.1 / np.sqrt(0.1), rtol=1e-4)


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: outer.SGD(0.0), "learning_rate"),
        (lambda: outer.Adam(float("nan")), "learning_rate"),
        (lambda: outer.RMSProp(0.1, clip_norm=-1.0), "clip_norm"),
        (lambda: outer.SGD(float("inf")), "learning_rate"),
        (lambda: outer.Adam(0.1, eps=0.0), "eps"),
        (lambda: outer.Adam(0.1, b1=1.0), "b1"),
        (lambda: outer.SGD(0.1, momentum=-0.1), "momentum"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}: .* must be (positive|at least 0)"):
        make()
