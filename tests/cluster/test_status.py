"""The status of a run, brought up to date by what it tells."""

import json
import math

import pytest

from pes_cluster.cluster.events import Event, from_line
from pes_cluster.cluster.status import (
    RunStatus,
    after_event,
    after_record,
    all_from_json,
    from_json,
    seconds_left,
)
from pes_cluster.metrics.record import StepRecord

BEGUN = RunStatus("a", 100)


def record(outer_step: int, eval_loss: float | None, **extra: float) -> StepRecord:
    return StepRecord(outer_step, 40, 2.0, 3.0, eval_loss, 1.0, 8, {**extra})


def test_a_step_is_taken_in() -> None:
    status = after_record(BEGUN, record(4, 7.0, shards=2, shards_target=3, recovered=1))
    assert status == RunStatus(
        "a", 100, "running", 4, 3.0, 7.0, 8, 2, 3, 1, inner_steps=40, wall_seconds=2.0
    )


def test_an_evaluation_stays_until_the_next() -> None:
    status = after_record(after_record(BEGUN, record(4, 7.0)), record(5, None))
    assert (status.outer_step, status.eval_loss) == (5, 7.0)


@pytest.mark.parametrize("kind", ["finished", "stopped", "failed"])
def test_an_end_is_taken_in_with_its_reason(kind: str) -> None:
    status = after_event(BEGUN, Event(kind, 4, {"reason": "because"}))
    assert (status.phase, status.error) == (kind, "because")


def test_a_run_that_goes_on_has_no_error_any_more() -> None:
    failed = after_event(BEGUN, Event("failed", 4, {"reason": "because"}))
    resumed = after_event(failed, Event("resumed", 4))
    assert (resumed.phase, resumed.error) == ("running", None)


def test_a_run_that_went_back_says_so() -> None:
    status = after_record(BEGUN, record(9, None))
    assert after_event(status, Event("fell_back", 5)).outer_step == 5


def test_a_checkpoint_is_taken_in_with_its_time() -> None:
    assert after_event(BEGUN, Event("checkpoint", 4, time=9.5)).checkpoint_time == 9.5


def test_what_is_of_no_account_changes_nothing() -> None:
    assert after_event(BEGUN, Event("joined", 4, {"node": "n"})) == BEGUN


def test_a_status_travels_as_json() -> None:
    status = after_record(BEGUN, record(4, math.nan, shards=2))
    text = status.to_json()
    assert json.loads(text)["eval_loss"] is None
    assert from_json(text).outer_step == 4
    newer = json.dumps(json.loads(BEGUN.to_json()) | {"of_a_later_version": 1})
    assert from_json(newer) == BEGUN


def test_many_statuses_travel_in_one_line() -> None:
    others = [BEGUN, RunStatus("b", 7)]
    text = f"[{', '.join(status.to_json() for status in others)}]"
    assert all_from_json(text) == others
    assert all_from_json("[]") == []
    for wrong in ("", "1", "[1]", '[{"name": "a"}]', "null"):
        with pytest.raises(ValueError, match="not statuses"):
            all_from_json(wrong)


def test_an_event_is_read_back_from_its_line() -> None:
    event = Event("lost", 4, {"shard": 1, "reason": "r"}, time=9.5)
    assert from_line(json.loads(event.to_json())) == event
    with pytest.raises(ValueError, match="not an event"):
        from_line({"event": "lost"})


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", '{"name": "a"}', "{", "1"])
def test_what_is_no_status_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a status"):
        from_json(text)


def test_the_time_that_is_left_needs_a_speed() -> None:
    assert seconds_left(BEGUN) is None
    moving = RunStatus("a", 100, "running", 40, steps_per_second=2.0)
    assert seconds_left(moving) == 30.0
    ended = RunStatus("a", 100, "stopped", 40, steps_per_second=2.0)
    assert seconds_left(ended) is None
