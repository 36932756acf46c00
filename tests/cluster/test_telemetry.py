"""What the gauges of a run show."""

import math
import re

import pytest

from pes_cluster.cluster.events import Event
from pes_cluster.cluster.telemetry import (
    GAUGES,
    Readings,
    after_event,
    after_record,
    timed,
    values,
)
from pes_cluster.metrics.record import StepRecord

BEGUN = Readings(outer_steps=100, staleness=1, checkpoint_time=1000.0)
EXTRA = {
    "shards": 3,
    "shards_target": 4,
    "recovered": 2,
    "replayed": 9,
    "diverged_pairs": 5,
    "accumulator_norm": 0.25,
}


def record(step: int, loss: float = 3.0, eval_loss: float | None = None) -> StepRecord:
    return StepRecord(step, 40 * step, 2.0 * step, loss, eval_loss, 1.5, 8, EXTRA)


def test_a_run_that_has_made_no_step_shows_what_is_known() -> None:
    assert values(BEGUN, now=1030.0) == {
        "outer_steps": 100,
        "staleness": 1,
        "diverged_pairs": 0,
        "nonfinite_losses": 0,
        "checkpoint_failures": 0,
        "checkpoint_age_seconds": 30,
    }


def test_every_gauge_shows_its_value() -> None:
    seen = timed(after_record(BEGUN, record(4, eval_loss=7.0)), record(2))
    seen = after_event(seen, Event("checkpoint", 4, {"seconds": 0.5}, time=1010.0))
    seen = after_event(seen, Event("checkpoint_failed", 4))
    found = values(seen, now=1030.0)
    assert found == {
        "outer_step": 4,
        "outer_steps": 100,
        "inner_steps": 160,
        "loss": 3.0,
        "eval_loss": 7.0,
        "gradient_norm": 1.5,
        "accumulator_norm": 0.25,
        "particles": 8,
        "shards": 3,
        "shards_target": 4,
        "recovered": 2,
        "replayed_steps": 9,
        "diverged_pairs": 5,
        "nonfinite_losses": 0,
        "step_seconds": 2.0,
        "checkpoint_age_seconds": 20,
        "checkpoint_seconds": 0.5,
        "checkpoint_failures": 1,
        "staleness": 1,
    }
    assert set(found) == {gauge.name for gauge in GAUGES}


def test_what_is_no_number_is_counted_and_not_shown() -> None:
    seen = after_record(BEGUN, record(1))
    for step, loss in ((2, math.nan), (3, math.inf)):
        seen = after_record(seen, record(step, loss, eval_loss=math.nan))
    found = values(seen, now=1000.0)
    assert (found["loss"], found["nonfinite_losses"]) == (3.0, 2)
    assert "eval_loss" not in found and found["diverged_pairs"] == 15


def test_an_evaluation_stays_until_the_next() -> None:
    seen = after_record(after_record(BEGUN, record(1, eval_loss=7.0)), record(2))
    assert values(seen, now=0.0)["eval_loss"] == 7.0


@pytest.mark.parametrize("before", [None, record(4), record(5)])
def test_no_step_since_then_changes_no_step_time(before: StepRecord | None) -> None:
    seen = timed(after_record(BEGUN, record(4)), record(3))
    assert timed(seen, before) == seen and seen.step_seconds == 2.0


def test_what_is_of_no_account_changes_nothing() -> None:
    assert after_event(BEGUN, Event("joined", 4, {"node": "n"})) == BEGUN


def test_names_are_plain_and_told_apart_and_meanings_are_sentences() -> None:
    names = [gauge.name for gauge in GAUGES]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names)
    assert all(re.fullmatch(r"[A-Z].+\.", gauge.meaning) for gauge in GAUGES)
