"""Progress as lines and as a bar."""

import dataclasses
import io
import re

import pytest
from rich.console import Console

from pes_cluster.metrics import progress
from pes_cluster.metrics.record import StepRecord


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def _record(step: int, eval_loss: float | None = None) -> StepRecord:
    return StepRecord(step, step, 0.0, 2.0, eval_loss, None, 4)


def _lines(clock: Clock, steps: int, seconds: float) -> list[str]:
    console = Console(file=io.StringIO(), width=200)
    with progress.reporter(steps, console) as shown:
        assert isinstance(shown, progress.Lines)
        for step in range(1, steps + 1):
            clock.now += seconds
            shown.show(_record(step, 3.5 if step == 20 else None))
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_line_for_the_first_step_and_each_twentieth(clock: Clock) -> None:
    lines = _lines(clock, 400, 0.001)
    assert len(lines) == 21
    assert lines[0] == "step 1/400  loss 2"
    assert lines[1] == "step 20/400  loss 2  eval 3.5"
    assert lines[-1].startswith("step 400/400")


def test_slow_runs_have_a_line_every_ten_seconds(clock: Clock) -> None:
    lines = _lines(clock, 400, 4.0)
    steps = [int(re.findall(r"step (\d+)/", line)[0]) for line in lines]
    assert max(b - a for a, b in zip(steps, steps[1:], strict=False)) <= 3
    assert "0.25 steps/s" in lines[-1]


def test_time_left_follows_the_speed(clock: Clock) -> None:
    lines = _lines(clock, 400, 1.0)
    (line,) = [line for line in lines if line.startswith("step 300/")]
    assert line.endswith("1 steps/s  100 s left")


def test_a_fused_loop_is_measured_by_its_chunks(clock: Clock) -> None:
    console = Console(file=io.StringIO(), width=200)
    with progress.reporter(3000, console) as shown:
        for step in range(1, 3001):
            if step % 1000 == 1:
                clock.now += 2.0  # A chunk of 1000 steps arrives at once.
            shown.show(_record(step))
    assert "500 steps/s" in console.file.getvalue().splitlines()[-1]  # type: ignore[attr-defined]


def test_diverged_pairs_are_told() -> None:
    """A run that goes on with capped losses should not do so in silence."""
    state = progress.State()
    record = dataclasses.replace(_record(1), extra={"diverged_pairs": 3})
    assert state.after(record) == "loss 2  3 diverged pairs"
    assert state.after(_record(2)) == "loss 2"


def test_a_terminal_has_a_bar() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress.reporter(4, console) as shown:
        assert isinstance(shown, progress.Bar)
        for step in range(1, 5):
            shown.show(_record(step, 3.5))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "4/4" in text
    assert "eval 3.5" in text
