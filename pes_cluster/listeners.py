"""Who hears what a run tells while it goes on, besides its own files."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Protocol

from pes_cluster.cluster.events import Event
from pes_cluster.cluster.status import RunStatus
from pes_cluster.config.decode import ConfigError, one_line
from pes_cluster.config.run_config import RunConfig
from pes_cluster.metrics import tensorboard
from pes_cluster.metrics.record import StepRecord
from pes_cluster.metrics.tensorboard import Scalars
from pes_cluster.ray_backend.environment import JOB
from pes_cluster.run_directory import RunDirectory

if TYPE_CHECKING:
    from pes_cluster.ray_backend.mailbox import Mailbox


class Listener(Protocol):
    """Hears of every step and every event; never fails, and never waits for long."""

    def on_record(self, record: StepRecord, /) -> None:
        """Takes note of an outer step."""
        ...

    def on_event(self, event: Event, /) -> None:
        """Takes note of what befell the run."""
        ...


class Shown:
    """A caller's own function, which hears of steps alone."""

    def __init__(self, show: Callable[[StepRecord], None]) -> None:
        self.on_record = show

    def on_event(self, event: Event) -> None:
        """Not passed on."""


class _Curves:
    """Scalars of the steps; a sitting, or going back, begins a file of its own."""

    def __init__(self, scalars: Scalars) -> None:
        self._scalars = scalars

    def on_record(self, record: StepRecord) -> None:
        self._scalars.write(record)

    def on_event(self, event: Event) -> None:
        if event.kind in ("started", "resumed", "fell_back"):
            self._scalars.begin(event.outer_step)


def check_extras(config: RunConfig) -> None:
    """Refuses what is asked for and cannot be had here, before anything is written.

    Raises:
        ConfigError: A package is missing.
    """
    lacking = tensorboard.missing() if config.run.tensorboard else None
    if lacking is not None:
        raise ConfigError(f"run.tensorboard: {lacking}")


@contextlib.contextmanager
def mailbox(config: RunConfig, directory: RunDirectory) -> Iterator["Mailbox | None"]:
    """Where a job's driver says how it stands, and is asked; None: this is no job's.

    Raises:
        ConfigError: The cluster cannot be reached.
    """
    name, address = os.environ.get(JOB), os.environ.get("RAY_ADDRESS")
    if not name or not address:
        yield None
        return
    from pes_cluster.ray_backend.mailbox import mailbox

    status = RunStatus(name=name, outer_steps=config.run.outer_steps)
    with contextlib.ExitStack() as stack:
        try:
            box = stack.enter_context(mailbox(address, status, directory.files))
        except ValueError as error:
            raise ConfigError(f"cluster.{one_line(error)}") from error
        yield box


@contextlib.contextmanager
def heard_by(
    config: RunConfig, directory: RunDirectory, box: "Mailbox | None"
) -> Iterator[list[Listener]]:
    """The mailbox, if there is one; gauges, where a Ray carries them; TensorBoard."""
    with contextlib.ExitStack() as stack:
        listeners: list[Listener] = [] if box is None else [box]
        if config.run.tensorboard:
            scalars = Scalars(directory.tensorboard, config.run.outer_steps)
            listeners.append(_Curves(stack.enter_context(contextlib.closing(scalars))))
        if box is not None or config.cluster.pool == "ray":
            # Ray is loaded only by the runs that use it.
            from pes_cluster.ray_backend.gauges import Gauges

            name = os.environ.get(JOB) or directory.path.resolve().name
            staleness = config.outer.staleness if config.outer else 0
            gauges = Gauges(name, config.run.outer_steps, staleness)
            listeners.append(stack.enter_context(contextlib.closing(gauges)))
        yield listeners
