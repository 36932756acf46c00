"""The phases of a run; each is a value, and the driver goes from one to the next."""

import dataclasses
from typing import Literal

Status = Literal["finished", "stopped", "failed"]


@dataclasses.dataclass(frozen=True)
class Starting:
    """Blocks are being handed to the shards, fresh or from a checkpoint."""


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
    """Nothing more happens; a failure says why in one line."""

    status: Status
    outer_step: int
    error: str | None = None


Phase = Starting | Running | Saving | Ended


def after_step(
    outer_step: int, outer_steps: int, every: int, stop: bool, failure: str | None
) -> Phase:
    """Decides what follows an outer step; pure.

    Args:
        outer_step: Updates done.
        outer_steps: Updates asked for.
        every: Updates between checkpoints.
        stop: Somebody asked the run to stop.
        failure: Why the run cannot go on.
    """
    if failure is not None:
        return Ended("failed", outer_step, failure)
    if outer_step >= outer_steps:
        return Saving(outer_step, Ended("finished", outer_step))
    if stop:
        return Saving(outer_step, Ended("stopped", outer_step))
    if outer_step % every == 0:
        return Saving(outer_step, Running(outer_step))
    return Running(outer_step)
