"""The phases of a run; each is a value, and the driver goes from one to the next.

What follows what is decided here, by pure functions of what a step boundary shows.
"""

import dataclasses
from typing import Literal

from pes_cluster.cluster.pool import Lost

Status = Literal["finished", "stopped", "failed"]

MAX_FALLS = 3  # Back to the same durable checkpoint, before the run is given up.
RETRY_SECONDS = 10.0  # Between attempts at a checkpoint that a notice asks for.


@dataclasses.dataclass(frozen=True)
class Starting:
    """Blocks are being handed to the shards, fresh or from the newest checkpoint.

    Attributes:
        fell_back: Why the run had to go back; None where it begins or is resumed.
    """

    fell_back: str | None = None


@dataclasses.dataclass(frozen=True)
class Running:
    """Outer steps are being made; `outer_step` updates are done."""

    outer_step: int


@dataclasses.dataclass(frozen=True)
class Saving:
    """A checkpoint is being written; afterwards the run goes on or ends."""

    outer_step: int
    then: "Running | Ended"


@dataclasses.dataclass(frozen=True)
class Ended:
    """Nothing more happens; a failure says why in one line.

    Attributes:
        status: How it ended.
        outer_step: Updates done.
        error: Why it failed.
        resumable: The failure lies in where the run ran; tried again, it may go on.
    """

    status: Status
    outer_step: int
    error: str | None = None
    resumable: bool = False


Phase = Starting | Running | Saving | Ended


@dataclasses.dataclass(frozen=True)
class Attempt:
    """The last attempt at a durable checkpoint.

    Attributes:
        time: When, on a clock that only goes forward; at first, when the run began.
        written: Whether it came to something.
        notice: The notice that was up then, if any.
    """

    time: float
    written: bool = True
    notice: str | None = None


def after_step(
    outer_step: int, outer_steps: int, due: bool, stop: bool, failure: str | None
) -> Phase:
    """Decides what follows an outer step.

    Args:
        outer_step: Updates done.
        outer_steps: Updates asked for.
        due: A checkpoint is.
        stop: Somebody asked the run to stop.
        failure: Why the run cannot go on, here or anywhere.
    """
    if failure is not None:
        return Ended("failed", outer_step, failure)
    if outer_step >= outer_steps:
        return Saving(outer_step, Ended("finished", outer_step))
    if stop:
        return Saving(outer_step, Ended("stopped", outer_step))
    if due:
        return Saving(outer_step, Running(outer_step))
    return Running(outer_step)


def checkpoint_due(
    outer_step: int,
    every: int,
    every_minutes: float | None,
    last: Attempt,
    now: float,
    notice: str | None,
) -> bool:
    """Decides whether a checkpoint is to be written at this boundary.

    Args:
        outer_step: Updates done.
        every: Updates between checkpoints.
        every_minutes: Or so long after the last attempt.
        last: That attempt.
        now: On the same clock.
        notice: Why one is wanted at once; answered once, and tried until it is.
    """
    waited = now - last.time
    if notice is not None and notice != last.notice:
        return True
    if notice is not None and not last.written and waited >= RETRY_SECONDS:
        return True
    late = every_minutes is not None and waited >= 60 * every_minutes
    return late or outer_step % every == 0


def after_loss(lost: Lost, outer_step: int, falls: int) -> Starting | Ended:
    """Decides what follows a loss that the shards themselves could not make good.

    Args:
        lost: What was lost.
        outer_step: Updates done.
        falls: How often the run has gone back since it last wrote a checkpoint.
    """
    where = f"shard {lost.shard} at outer step {outer_step + 1}: {lost.reason}"
    if lost.user_error:
        return Ended("failed", outer_step, where)
    if lost.resumable and falls < MAX_FALLS:
        return Starting(fell_back=where)
    line = f"{where}; `pes resume` continues the run"
    return Ended("failed", outer_step, line, resumable=True)


def after_lost_scale(lost: Lost, outer_step: int) -> Ended:
    """Decides what follows a loss while the run was being scaled.

    Some shards may have changed already; a new driver begins with what was saved.
    """
    line = f"shard {lost.shard} while scaling at outer step {outer_step}: {lost.reason}"
    return Ended("failed", outer_step, line, resumable=not lost.user_error)


def after_refused_save(saving: Saving, reason: str) -> Running | Ended:
    """Decides what follows a checkpoint that could not be written.

    The one before it stays good, so a run goes on; but it cannot end without one.
    """
    if isinstance(saving.then, Running):
        return saving.then
    line = f"no checkpoint of the last step: {reason}"
    return Ended("failed", saving.outer_step, line, resumable=True)
