"""What a driver is to do, and how it ended."""

import dataclasses
from collections.abc import Callable
from typing import Any

from pes_cluster.cluster.control import Asked
from pes_cluster.cluster.divergence import Watch
from pes_cluster.cluster.events import Event
from pes_cluster.cluster.phases import Status
from pes_cluster.core.task import Theta
from pes_cluster.metrics.record import StepRecord


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the driver is to do.

    Attributes:
        outer_steps: Updates asked for.
        checkpoint_every: Updates between checkpoints.
        digest: Of the configuration that determines the result.
        on_record: Called for every outer step, in order.
        should_stop: Asked at every step boundary.
        staleness: By how many updates the windows' theta is behind.
        watch: What is to be thought of diverged pairs.
        checkpoint_minutes: A checkpoint is also due so long after the last.
        block: An example of a block's leaves; a checkpoint of others is refused.
        commands: Asked at every step boundary for what the run is to do besides.
        on_event: Called for whatever befalls the run.
        settle: Called before a checkpoint is committed: sees the records to the disk
            and returns those lines that it refuses, which the checkpoint then keeps.
        on_rewind: Called with the step from which the run goes on, before it does, and
            with such lines: later records will be made again.
    """

    outer_steps: int
    checkpoint_every: int
    digest: str
    on_record: Callable[[StepRecord], None]
    should_stop: Callable[[], bool] = lambda: False
    staleness: int = 0
    watch: Watch = Watch()
    checkpoint_minutes: float | None = None
    block: Any = None
    commands: Callable[[], list[Asked]] = lambda: []
    on_event: Callable[[Event], None] = lambda event: None
    settle: Callable[[], tuple[str, ...]] = lambda: ()
    on_rewind: Callable[[int, tuple[str, ...]], None] = lambda outer_step, lines: None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: finished, stopped (asked to, resumable) or failed.
        theta: As numpy.
        outer_step: Updates done.
        inner_steps: Inner steps charged, all particles counted.
        wall_seconds: Over all sittings.
        error: Why it failed, one line.
        resumable: Of a failure: tried again, the run may go on.
    """

    status: Status
    theta: Theta
    outer_step: int
    inner_steps: int
    wall_seconds: float
    error: str | None
    resumable: bool
