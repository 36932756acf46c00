"""What the policies make of losses that are no numbers, by hand."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pes_cluster.core.divergence import DivergenceRule, restart
from pes_cluster.core.pairs import Trajectories

NAN, INF = np.nan, np.inf
# Pairs: healthy, healthy, one member diverged late, both diverged, padding.
LOSSES = np.array(
    [
        [[1.0, 2.0], [3.0, 4.0]],
        [[-1.0, -2.0], [0.5, 5.0]],
        [[2.0, INF], [1.0, 9.0]],
        [[1e30, NAN], [INF, NAN]],
        [[NAN, NAN], [NAN, 7.0]],
    ],
    np.float32,
)
ACTIVE = np.array([True, True, True, True, False])


def _judge(policy: Any, losses: Any = LOSSES, cap: float | None = None) -> Any:
    rule = DivergenceRule(policy, cap, endless=False)
    return rule.judge(jnp.asarray(losses), jnp.asarray(ACTIVE))


@pytest.mark.parametrize("policy", ["cap", "restart_pair", "fail"])
def test_who_diverged(policy: Any) -> None:
    np.testing.assert_array_equal(_judge(policy).diverged, [0, 0, 1, 1, 0])


def test_a_capped_member_is_as_bad_as_the_worst_of_the_others() -> None:
    """Its own losses on the way out, 1e30 here, do not set the bound."""
    judged = _judge("cap")
    np.testing.assert_array_equal(judged.losses[:2], LOSSES[:2])
    np.testing.assert_array_equal(judged.losses[2], [[2, 9], [1, 9]])
    np.testing.assert_array_equal(judged.losses[3], [[9, 9], [9, 9]])
    np.testing.assert_array_equal(judged.counted, ACTIVE)


def test_where_all_have_diverged_nothing_counts() -> None:
    losses = np.where(np.arange(5)[:, None, None] < 3, NAN, LOSSES)
    judged = _judge("cap", losses)
    np.testing.assert_array_equal(judged.losses[:4], np.zeros((4, 2, 2)))


def test_a_stated_cap_bounds_everybody() -> None:
    judged = _judge("cap", cap=3.0)
    np.testing.assert_array_equal(judged.losses[0], [[1, 2], [3, 3]])
    np.testing.assert_array_equal(judged.losses[2], [[2, 3], [1, 3]])
    np.testing.assert_array_equal(judged.losses[3], np.full((2, 2), 3))


@pytest.mark.parametrize("policy", ["restart_pair", "fail"])
def test_pairs_that_are_left_out(policy: Any) -> None:
    judged = _judge(policy)
    np.testing.assert_array_equal(judged.counted, [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(judged.losses[:2], LOSSES[:2])


@pytest.mark.parametrize(
    "bad", [[NAN, 1.0], [INF, 1.0], [-INF, 1.0], [INF, -INF], [3e38, 3e38]]
)
def test_what_is_no_number_is_seen_whatever_its_kind(bad: Any) -> None:
    """Finite losses whose sum overflows would make theta infinite all the same."""
    losses = LOSSES.copy()
    losses[1, 1] = bad
    judged = _judge("cap", losses)
    assert judged.diverged[1]
    assert np.all(np.isfinite(judged.losses[:4]))
    assert float(jnp.max(judged.losses[:4])) == 9.0


@pytest.mark.parametrize(
    ("policy", "endless", "restarts"),
    [
        ("cap", False, False),
        ("cap", True, True),
        ("restart_pair", False, True),
        ("fail", False, False),
    ],
)
def test_who_begins_a_new_episode(policy: Any, endless: bool, restarts: bool) -> None:
    rule = DivergenceRule(policy, None, endless)
    which = rule.restarted(jnp.array([False, True]))
    np.testing.assert_array_equal(which, [False, restarts])


def test_a_restart_leaves_the_others_alone() -> None:
    before = Trajectories(
        state=jnp.array([[1.0, 2.0], [NAN, 3.0]]),
        inner_step=jnp.array([[4, 5], [6, 7]]),
        episode=jnp.array([[0, 1], [2, 2]]),
        objective=jnp.array([[0.5, 0.6], [0.7, NAN]]),
    )
    after = restart(before, jnp.array([False, True]))
    np.testing.assert_array_equal(after.inner_step, [[4, 5], [0, 0]])
    np.testing.assert_array_equal(after.episode, [[0, 1], [3, 3]])
    np.testing.assert_array_equal(
        after.objective, np.array([[0.5, 0.6], [0, 0]], np.float32)
    )
