"""How runs stand: jobs as a cluster tells it, directories as their files do."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import TypeVar

from pes_cluster.cluster import events
from pes_cluster.cluster.job import Attempt
from pes_cluster.cluster.status import RunStatus, after_event, after_record
from pes_cluster.metrics import jsonl, record
from pes_cluster.metrics.record import StepRecord
from pes_cluster.run_directory import RunDirectory

LEFT = "no process"  # The phase of a run that has not ended and that nothing runs.

Parsed = TypeVar("Parsed")
_SECONDS_OF_A_MEASUREMENT = 0.5
_ENDED = ("finished", "stopped", "failed")


@dataclasses.dataclass(frozen=True)
class Standing:
    """How one run stands.

    Attributes:
        name: The job's, or the directory as it was named.
        phase: waiting, starting, running, finished, stopped, failed, or `LEFT`.
        live: Whether it will say more.
        seen: What it has said last; None: nothing yet.
    """

    name: str
    phase: str
    live: bool
    seen: RunStatus | None = None


def of_job(attempt: Attempt, seen: RunStatus | None) -> Standing:
    """How a job stands, by its newest attempt and what its driver says."""
    begins = attempt.state == "running" and seen and seen.phase == "starting"
    phase = "starting" if begins else attempt.state
    return Standing(attempt.name, phase, attempt.live, seen)


def of_directory(path: pathlib.Path) -> Standing:
    """How the run in a directory stands, from its files and its lock.

    Raises:
        RunDirectoryError: It holds no run, or one that is not understood.
    """
    directory = RunDirectory(path)
    config = directory.saved_config()
    status = RunStatus(name=str(path), outer_steps=config.run.outer_steps)
    for event in _parsed(directory.events, events.from_line):
        status = after_event(status, event)
    records = _records(directory.metrics)
    if records:
        speed = _speed(records)
        made = after_record(status, records[-1])
        status = dataclasses.replace(made, phase=status.phase, steps_per_second=speed)
    live = directory.is_running()
    phase = _phase(live, status.phase, begun=bool(records))
    return Standing(str(path), phase, live, dataclasses.replace(status, phase=phase))


def _phase(live: bool, told: str, begun: bool) -> str:
    """What a run is at, by its lock, its last event and whether it has made steps."""
    if live:
        return "starting" if told == "starting" and not begun else "running"
    return told if told in _ENDED else LEFT


def _records(path: pathlib.Path) -> list[StepRecord]:
    """The newest records; the last one holds the last evaluation, however old."""
    records = _parsed(path, record.from_line)
    if records and records[-1].eval_loss is None:
        evaluated = jsonl.last_with(path, "eval_loss").get("eval_loss")
        records[-1] = dataclasses.replace(records[-1], eval_loss=evaluated)
    return records


def _speed(records: list[StepRecord]) -> float | None:
    """Outer steps per second over these records, or over the whole run.

    A fused loop delivers many records in one moment, which measure nothing.
    """
    first, last = records[0], records[-1]
    steps, seconds = last.outer_step, last.wall_seconds
    if seconds - first.wall_seconds >= _SECONDS_OF_A_MEASUREMENT:
        steps, seconds = steps - first.outer_step, seconds - first.wall_seconds
    return steps / seconds if seconds > 0 else None


def _parsed(path: pathlib.Path, parse: Callable[[jsonl.Line], Parsed]) -> list[Parsed]:
    """What the newest lines of a file hold; lines of another kind are passed over."""
    found = []
    with contextlib.suppress(OSError):  # Nothing has happened yet.
        for line in jsonl.tail(path):
            with contextlib.suppress(ValueError):
                found.append(parse(line))
    return found
