"""How a run stands, as a value that is brought up to date by what it tells."""

import dataclasses
import json
import math
from typing import Any

from pes_cluster.cluster.events import Event
from pes_cluster.metrics.record import StepRecord


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """How a run stands.

    Attributes:
        name: The run's.
        phase: starting, running, finished, stopped or failed.
        outer_step: Updates done.
        outer_steps: Updates asked for.
        loss: The last window's.
        eval_loss: The last evaluation's.
        particles: Behind the last estimate.
        shards: Alive at the last step.
        shards_target: Aimed at then, the lost ones included.
        recovered: Losses that were made good, so far.
        inner_steps: Charged so far.
        wall_seconds: Over all sittings.
        steps_per_second: Of this sitting.
        checkpoint_time: When the newest was written, in seconds since 1970.
        error: Why it failed.
    """

    name: str
    outer_steps: int
    phase: str = "starting"
    outer_step: int = 0
    loss: float | None = None
    eval_loss: float | None = None
    particles: int | None = None
    shards: int | None = None
    shards_target: int | None = None
    recovered: int = 0
    inner_steps: int = 0
    wall_seconds: float = 0.0
    steps_per_second: float | None = None
    checkpoint_time: float | None = None
    error: str | None = None

    def to_json(self) -> str:
        """Returns one line of JSON; what is no finite number is null."""
        fields = dataclasses.asdict(self)
        return json.dumps({name: _finite(value) for name, value in fields.items()})


def from_json(text: str) -> RunStatus:
    """Returns the status of a line; what other versions added is passed over.

    Raises:
        ValueError: It is no status.
    """
    try:
        return _from_fields(json.loads(text))
    except (AttributeError, TypeError, ValueError):
        raise ValueError("not a status") from None


def all_from_json(text: str) -> list[RunStatus]:
    """Returns the statuses of a line that holds several.

    Raises:
        ValueError: Some are none.
    """
    try:
        return [_from_fields(fields) for fields in json.loads(text)]
    except (AttributeError, TypeError, ValueError):
        raise ValueError("not statuses") from None


def _from_fields(fields: dict[str, Any]) -> RunStatus:
    known = {field.name for field in dataclasses.fields(RunStatus)}
    return RunStatus(**{n: value for n, value in fields.items() if n in known})


def after_record(status: RunStatus, record: StepRecord) -> RunStatus:
    """The status after an outer step."""
    extra = record.extra
    return dataclasses.replace(
        status,
        phase="running",
        outer_step=record.outer_step,
        loss=record.loss,
        eval_loss=status.eval_loss if record.eval_loss is None else record.eval_loss,
        particles=record.particles,
        shards=_whole(extra.get("shards")),
        shards_target=_whole(extra.get("shards_target")),
        recovered=int(extra.get("recovered", 0)),
        inner_steps=record.inner_steps,
        wall_seconds=record.wall_seconds,
    )


def after_event(status: RunStatus, event: Event) -> RunStatus:
    """The status after something befell the run."""
    changed: dict[str, Any] = {}
    match event.kind:
        case "started" | "resumed" | "fell_back":
            changed = {"phase": "running", "outer_step": event.outer_step}
            changed["error"] = None  # That of an earlier sitting is made good.
        case "finished" | "stopped" | "failed":
            changed = {"phase": event.kind, "error": event.fields.get("reason")}
        case "checkpoint":
            changed = {"checkpoint_time": event.time}
    return dataclasses.replace(status, **changed)


def seconds_left(status: RunStatus) -> float | None:
    """How long the run will go on at its present speed, where that is known."""
    if status.phase != "running" or not status.steps_per_second:
        return None
    return (status.outer_steps - status.outer_step) / status.steps_per_second


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    absent = isinstance(value, float) and not math.isfinite(value)
    return None if absent else value
