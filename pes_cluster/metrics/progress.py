"""Progress of a run: a live bar on a terminal, plain lines elsewhere."""

import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from pes_cluster.metrics.record import StepRecord

_SECONDS_BETWEEN_LINES = 10.0
_SECONDS_OF_A_MEASUREMENT = 0.5


class Reporter(AbstractContextManager["Reporter"], Protocol):
    """Shows records as they come, until its context ends."""

    def show(self, record: StepRecord) -> None:
        """Shows one outer step."""
        ...


def reporter(outer_steps: int, console: Console) -> Reporter:
    """Returns a bar for a terminal, lines for anything else."""
    if console.is_terminal:
        return Bar(outer_steps, console)
    return Lines(outer_steps, console)


class Bar:
    """A live bar with loss, evaluation, speed and time left."""

    def __init__(self, outer_steps: int, console: Console) -> None:
        self._progress = Progress(
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", total=outer_steps, state="compiling")
        self._state = State()

    def show(self, record: StepRecord) -> None:
        """Moves the bar."""
        self._progress.update(
            self._task, completed=record.outer_step, state=self._state.after(record)
        )

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()


class Lines:
    """A plain line for the first step, every twentieth of the run, and every 10 s."""

    def __init__(self, outer_steps: int, console: Console) -> None:
        self._total, self._console = outer_steps, console
        self._every = max(outer_steps // 20, 1)
        self._last: float | None = None
        self._state = State()

    def show(self, record: StepRecord) -> None:
        """Prints a line where one is due."""
        step, now = record.outer_step, time.monotonic()
        state = self._state.after(record)
        late = self._last is None or now - self._last >= _SECONDS_BETWEEN_LINES
        if late or step % self._every == 0 or step == self._total:
            self._last = now
            left = self._total - step
            if self._state.speed and left:
                state += f"  {left / self._state.speed:.0f} s left"
            self._console.out(f"step {step}/{self._total}  {state}", highlight=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        return None


class State:
    """What is said of the newest record: losses, and the speed of late."""

    def __init__(self) -> None:
        self._evaluated = ""
        self._mark: tuple[int, float] | None = None
        self.speed: float | None = None

    def after(self, record: StepRecord) -> str:
        """Takes a record in and returns the text."""
        if record.eval_loss is not None:
            self._evaluated = f"  eval {record.eval_loss:.4g}"
        self._measure(record.outer_step)
        speed = f"  {self.speed:.3g} steps/s" if self.speed else ""
        diverged = record.extra.get("diverged_pairs", 0)
        told = f"  {diverged:.0f} diverged pairs" if diverged else ""
        return f"loss {record.loss:.4g}{self._evaluated}{told}{speed}"

    def _measure(self, outer_step: int) -> None:
        now = time.monotonic()
        if self._mark is None:
            self._mark = (outer_step, now)
            return
        steps, seconds = outer_step - self._mark[0], now - self._mark[1]
        # A fused loop delivers many records in one moment: they are one measurement.
        if seconds >= _SECONDS_OF_A_MEASUREMENT:
            self.speed = steps / seconds
            self._mark = (outer_step, now)
