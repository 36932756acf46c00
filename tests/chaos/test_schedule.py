"""The faults of a seed."""

from collections import Counter

import pytest

from tests.chaos.schedule import HEAD_LOST, HEAD_LOST_REDIS, KINDS, schedule


def struck(seed: int, **options) -> Counter[str]:
    plans = schedule(seed, 300, **options)
    return Counter(fault.kind for plan in plans for fault in plan.faults)


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_strikes_as_often_as_asked(seed):
    assert struck(seed) == dict.fromkeys(KINDS, 2) | {HEAD_LOST: 1}
    assert sum(struck(seed).values()) >= 20


def test_without_redis_its_fault_is_left_out():
    assert struck(0, redis=False) == struck(0) - Counter({HEAD_LOST_REDIS: 2})


@pytest.mark.parametrize("seed", range(20))
def test_faults_come_in_order_inside_the_run(seed):
    for plan in schedule(seed, 300):
        steps = [fault.step for fault in plan.faults]
        assert steps == sorted(steps)
        assert all(0 < step <= 0.8 * 300 for step in steps)


def test_the_first_run_has_no_faults_and_six_have_several():
    plans = schedule(0, 300)
    assert plans[0].faults == ()
    assert sum(len(plan.faults) >= 3 for plan in plans) == 6


def test_a_seed_says_it_all_and_seeds_differ():
    assert schedule(3, 300) == schedule(3, 300)
    assert schedule(3, 300) != schedule(4, 300)


def test_only_runs_that_lose_a_head_to_redis_need_one():
    for plan in schedule(5, 300):
        assert plan.redis == (HEAD_LOST_REDIS in [fault.kind for fault in plan.faults])
