"""How runs stand, as people see it."""

import dataclasses
import io
from collections.abc import Callable, Iterator, Sequence

import pytest
from rich.console import Console

from pes_cluster import status_view
from pes_cluster.cluster.job import Attempt
from pes_cluster.cluster.status import RunStatus
from pes_cluster.standing import LEFT, Standing, of_job
from pes_cluster.status_view import HEADINGS, Changes, cells, duration, line, remarks

SEEN = RunStatus(
    name="a",
    outer_steps=100,
    phase="running",
    outer_step=40,
    loss=3.25,
    eval_loss=7.0,
    particles=8,
    shards=3,
    shards_target=4,
    recovered=1,
    steps_per_second=0.5,
    checkpoint_time=970.0,
)
RUNNING = Standing("a", "running", True, SEEN)


def console(terminal: bool = False) -> Console:
    return Console(file=io.StringIO(), width=150, force_terminal=terminal)


def text(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


def test_every_column_shows_what_its_heading_says() -> None:
    shown = dict(zip(HEADINGS, cells(RUNNING, now=1000.0), strict=True))
    assert shown == {
        "job": "a",
        "phase": "running",
        "step": "40/100",
        "loss": "3.25",
        "eval loss": "7",
        "particles": "8",
        "shards": "3/4",
        "recovered": "1",
        "checkpoint": "30 s ago",
        "steps/s": "0.5",
        "ETA": "2 min",
    }


def test_what_is_not_known_is_a_dash_in_the_table_and_absent_in_a_line() -> None:
    waiting = Standing("a", "waiting", True)
    assert cells(waiting, 0.0) == ("a", "waiting", *["-"] * 9)
    assert line(waiting, 0.0) == "a: waiting"
    assert "ETA" not in line(dataclasses.replace(RUNNING, seen=_seen(steps=0)), 0.0)


def test_the_table_holds_a_row_for_each_run_and_its_headings() -> None:
    on = console()
    status_view.show(lambda: [RUNNING, Standing("b", "waiting", True)], on)
    head, _, first, second = text(on).splitlines()
    assert [word for word in HEADINGS if word not in head] == []
    assert first.split()[:3] == ["a", "running", "40/100"]
    assert second.split()[:2] == ["b", "waiting"]


def test_why_a_run_failed_and_what_goes_on_is_said_below() -> None:
    failed = Standing("a", "failed", False, dataclasses.replace(SEEN, error="because"))
    assert remarks([RUNNING, failed]) == ["a: because"]
    (said,) = remarks([Standing("runs/a", LEFT, False, SEEN)])
    assert "no process is running it" in said and "pes resume runs/a" in said


@pytest.mark.parametrize(
    "changed",
    [
        {"phase": "finished"},
        {"seen": None},
        {"seen": dataclasses.replace(SEEN, shards=4)},
        {"seen": dataclasses.replace(SEEN, shards_target=5)},
        {"seen": dataclasses.replace(SEEN, particles=10)},
        {"seen": dataclasses.replace(SEEN, recovered=2)},
    ],
)
def test_a_change_of_state_is_told_at_once(changed: dict[str, object]) -> None:
    changes = Changes()
    assert changes.among([RUNNING], now=0.0) == [RUNNING]
    assert changes.among([RUNNING], now=1.0) == []
    later = dataclasses.replace(RUNNING, **changed)
    assert changes.among([later], now=2.0) == [later]


def test_steps_are_told_now_and_then_and_standing_still_never() -> None:
    changes, soon = Changes(), status_view.SECONDS_BETWEEN_LINES / 2
    moved = dataclasses.replace(RUNNING, seen=_seen(steps=41))
    assert changes.among([RUNNING], now=0.0)
    assert changes.among([moved], now=soon) == []
    assert changes.among([RUNNING], now=3 * soon) == []
    assert changes.among([moved], now=3 * soon) == [moved]


def watched(*moments: Sequence[Standing]) -> Callable[[], Sequence[Standing]]:
    coming: Iterator[Sequence[Standing]] = iter(moments)
    return lambda: next(coming)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_watch_goes_on_until_all_have_ended(terminal: bool) -> None:
    ended = Standing("a", "finished", False, _seen(steps=100))
    other = Standing("b", "running", True)
    look = watched([RUNNING, other], [ended, other], [ended, Standing("b", "x", False)])
    on = console(terminal)
    status_view.watch(look, on, period=0.0)
    with pytest.raises(StopIteration):
        look()
    assert "40/100" in text(on) and "100/100" in text(on)
    if not terminal:
        said = [told.split("  ")[0] for told in text(on).splitlines()]
        assert said == ["a: running", "b: running", "a: finished", "b: x"]


@pytest.mark.parametrize("terminal", [True, False])
def test_ctrl_c_is_how_one_leaves(terminal: bool) -> None:
    looks = watched([RUNNING])

    def look() -> Sequence[Standing]:
        try:
            return looks()
        except StopIteration:
            raise KeyboardInterrupt from None

    status_view.watch(look, console(terminal), period=0.0)


@pytest.mark.parametrize(
    "seconds, shown",
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2.0 h"), (172800, "2.0 d")],
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_a_job_stands_as_its_newest_attempt_does() -> None:
    begun = Attempt("a", 1, status="RUNNING")
    assert of_job(Attempt("a", 1), None) == Standing("a", "waiting", True)
    assert of_job(begun, None).phase == "running"
    assert of_job(begun, RunStatus("a", 9)).phase == "starting"
    assert of_job(begun, SEEN) == RUNNING
    ended = Attempt("a", 2, status="FAILED", exit_code=143)
    assert of_job(ended, SEEN) == Standing("a", "stopped", False, SEEN)


def _seen(steps: int) -> RunStatus:
    speed = SEEN.steps_per_second if steps else None
    return dataclasses.replace(SEEN, outer_step=steps, steps_per_second=speed)
