"""What a fault is said to have cost, on events made up."""

import pytest

from tests.chaos import bars
from tests.chaos.measure import Injection, Row, rows, table

PROGRESS = [(0.0, 0), (9.0, 50), (11.0, 51), (15.0, 52)]


def injected(kind: str, time: float = 10.0, step: int = 51) -> Injection:
    return Injection(kind, "w1", step, time)


def event(time: float, kind: str, outer_step: int = 51, **fields) -> dict:
    return {"time": time, "event": kind, "outer_step": outer_step, **fields}


def costs(row: Row) -> tuple:
    return row.detected, row.recovered, row.caught_up, row.replayed


def test_a_lost_shard_is_noticed_rebuilt_and_made_up_for():
    events = [event(9.5, "lost"), event(12.0, "lost"), event(14.0, "recovered")]
    events[2]["replayed"] = 7
    [row] = rows([injected("host cut")], events, PROGRESS)
    assert costs(row) == (2.0, 4.0, 5.0, 7)


def test_the_step_under_way_when_the_fault_struck_does_not_show_that_it_is_over():
    progress = [(9.0, 50), (10.1, 52), (15.0, 53)]
    events = [event(12.0, "lost"), event(14.0, "recovered", replayed=1)]
    [row] = rows([injected("host cut")], events, progress)
    assert costs(row) == (2.0, 4.0, 5.0, 1)


def test_what_nobody_noticed_costs_only_time():
    [row] = rows([injected("slow link")], [], PROGRESS)
    assert costs(row) == (None, None, 5.0, None)


def test_a_run_that_never_goes_on_has_no_end_of_its_fault():
    [row] = rows([injected("host cut", step=52)], [event(11.0, "lost")], PROGRESS)
    assert costs(row) == (1.0, None, None, None)


def test_a_resumed_run_is_back_with_its_next_step_and_owes_what_was_not_saved():
    progress = [(9.0, 51), (17.0, 41), (19.0, 52)]
    events = [event(16.0, "resumed", outer_step=40)]
    [row] = rows([injected("driver killed")], events, progress)
    assert costs(row) == (6.0, 7.0, 9.0, 11)


def test_a_run_that_fell_back_is_counted_likewise():
    progress = [(9.0, 51), (17.0, 41), (19.0, 52)]
    events = [event(12.0, "lost"), event(16.0, "fell_back", outer_step=40)]
    [row] = rows([injected("host cut")], events, progress)
    assert costs(row) == (2.0, 7.0, 9.0, 11)


def test_a_full_disk_is_over_with_the_next_checkpoint():
    events = [
        event(11.0, "checkpoint_failed"),
        event(12.0, "checkpoint_failed"),
        event(13.0, "checkpoint"),
        event(14.0, "checkpoint"),
    ]
    [row] = rows([injected("disk full")], events, PROGRESS)
    assert costs(row) == (1.0, 3.0, 5.0, None)


def test_each_event_is_ascribed_to_the_last_fault_that_can_have_caused_it():
    faults = [
        injected("driver killed", time=1.0),
        injected("host cut", time=2.0),
        injected("disk full", time=3.0),
    ]
    events = [
        event(4.0, "checkpoint_failed"),
        event(5.0, "lost"),
        event(6.0, "resumed"),
    ]
    seen = rows(faults, events, PROGRESS)
    assert [row.detected for row in seen] == [5.0, 3.0, 1.0]


def test_a_drain_ends_with_the_move_and_no_other_fault_does():
    faults = [injected("drain notice", time=1.0), injected("host cut", time=2.0)]
    events = [
        event(3.0, "lost"),
        event(4.0, "recovered", replayed=1),
        event(6.0, "joined"),
        event(6.0, "drained"),
        event(6.0, "moved"),
    ]
    drain, cut = rows(faults, events, PROGRESS)
    assert (drain.detected, drain.recovered) == (5.0, 5.0)
    assert (cut.detected, cut.recovered) == (1.0, 2.0)


def test_events_before_the_first_fault_are_nobodys():
    [row] = rows([injected("host cut")], [event(1.0, "recovered")], PROGRESS)
    assert row.detected is None


def test_the_table_lines_up():
    text = table(("a", "bcd"), [(None, 1.26), ("long", 7)])
    assert text.splitlines() == ["a     bcd", "-     1.3", "long  7"]


@pytest.mark.parametrize(
    ("kind", "megabytes", "seconds", "met"),
    [
        ("shard killed", 0.9, 2.9, True),
        ("shard killed", 0.9, 3.1, False),
        ("shard killed", 0.9, None, False),
        ("shard killed", 10.0, 3.1, True),
        ("host cut", 0.9, 9.9, True),
        ("host cut", 0.9, 10.1, False),
        ("driver killed", 0.9, 15.1, False),
        ("driver killed", 10.0, 15.1, False),
    ],
)
def test_bars_hold_for_small_states_and_for_the_driver(kind, megabytes, seconds, met):
    row = Row(injected(kind), 0.1, seconds, seconds, 0)
    text, all_met = bars.report([(megabytes, row)])
    assert all_met is met
    assert ("NO" in text) is not met


def test_a_driver_is_not_charged_for_the_steps_that_it_makes_again():
    row = Row(injected("driver killed"), 0.1, 14.0, 20.0, 60)
    assert bars.report([(1.0, row)])[1]


def test_the_bars_are_measured_with_every_size_and_fault_that_they_name():
    plans = bars.plans()
    assert [plan.name for plan in plans] == ["1 MB", "10 MB", "100 MB"]
    assert {fault.kind for fault in plans[0].faults} == set(bars.BARS)
    assert all(plan.one_by_one for plan in plans)
