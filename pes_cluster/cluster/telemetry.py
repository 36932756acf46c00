"""What a run tells a monitoring system: the table of its gauges, and their values.

Totals are gauges too: a counter that cannot be set to 0 hides its first increase.
"""

import dataclasses
import math
from collections.abc import Callable

from pes_cluster.cluster.events import Event
from pes_cluster.metrics.record import StepRecord

PREFIX = "pes_cluster_"


@dataclasses.dataclass(frozen=True)
class Readings:
    """What the gauges show; the values of a run that has made no step yet.

    Attributes:
        outer_steps: Asked for.
        staleness: Of theta, in outer steps.
        record: Of the last step.
        loss: The last one that was finite.
        eval_loss: The last evaluation's.
        diverged_pairs: In all steps of this sitting together.
        nonfinite_losses: Steps of this sitting whose mean loss was not finite.
        step_seconds: A step's, lately.
        checkpoint_time: When the newest was written, in seconds since 1970; before
            the first, when this sitting began.
        checkpoint_seconds: That the newest took.
        checkpoint_failures: In this sitting.
    """

    outer_steps: int
    staleness: int
    checkpoint_time: float
    record: StepRecord | None = None
    loss: float | None = None
    eval_loss: float | None = None
    diverged_pairs: int = 0
    nonfinite_losses: int = 0
    step_seconds: float | None = None
    checkpoint_seconds: float | None = None
    checkpoint_failures: int = 0


def _of_record(name: str) -> Callable[[Readings, float], float | None]:
    """A field of the last record, or one of its other numbers."""

    def value(readings: Readings, now: float) -> float | None:
        del now
        record = readings.record
        if record is None:
            return None
        return (
            getattr(record, name, None) if name in _FIELDS else record.extra.get(name)
        )

    return value


def _of_readings(name: str) -> Callable[[Readings, float], float | None]:
    return lambda readings, now: getattr(readings, name)


def _checkpoint_age(readings: Readings, now: float) -> float:
    return max(now - readings.checkpoint_time, 0.0)


@dataclasses.dataclass(frozen=True)
class Exported:
    """One gauge.

    Attributes:
        name: Without `PREFIX`; it ends with the unit where there is one.
        meaning: One line.
        value: Of the readings at a time; None: not known.
    """

    name: str
    meaning: str
    value: Callable[[Readings, float], float | None]


_FIELDS = {field.name for field in dataclasses.fields(StepRecord)}

GAUGES = (
    Exported("outer_step", "Updates of theta done.", _of_record("outer_step")),
    Exported("outer_steps", "Updates asked for.", _of_readings("outer_steps")),
    Exported("inner_steps", "Inner steps charged.", _of_record("inner_steps")),
    Exported("loss", "Mean loss of the last window.", _of_readings("loss")),
    Exported(
        "eval_loss", "Loss of the last full evaluation.", _of_readings("eval_loss")
    ),
    Exported("gradient_norm", "Norm of the estimate.", _of_record("gradient_norm")),
    Exported(
        "accumulator_norm",
        "Mean norm of the accumulated perturbations.",
        _of_record("accumulator_norm"),
    ),
    Exported("particles", "Behind the last estimate.", _of_record("particles")),
    Exported("shards", "Shards that own blocks.", _of_record("shards")),
    Exported("shards_target", "Shards aimed at.", _of_record("shards_target")),
    Exported("recovered", "Losses made good, in all.", _of_record("recovered")),
    Exported("replayed_steps", "Windows replayed for it.", _of_record("replayed")),
    Exported(
        "diverged_pairs",
        "Pairs with losses that are not finite, summed over the steps of a sitting.",
        _of_readings("diverged_pairs"),
    ),
    Exported(
        "nonfinite_losses",
        "Steps of a sitting whose mean loss is not finite.",
        _of_readings("nonfinite_losses"),
    ),
    Exported("step_seconds", "An outer step's, lately.", _of_readings("step_seconds")),
    Exported(
        "checkpoint_age_seconds",
        "Since the newest checkpoint; before the first, since the start.",
        _checkpoint_age,
    ),
    Exported(
        "checkpoint_seconds",
        "That the newest checkpoint took.",
        _of_readings("checkpoint_seconds"),
    ),
    Exported(
        "checkpoint_failures",
        "Checkpoints of a sitting that could not be written.",
        _of_readings("checkpoint_failures"),
    ),
    Exported("staleness", "Delay of theta, in steps.", _of_readings("staleness")),
)


def after_record(readings: Readings, record: StepRecord) -> Readings:
    """The readings after an outer step."""
    finite = math.isfinite(record.loss)
    evaluated = record.eval_loss is not None
    return dataclasses.replace(
        readings,
        record=record,
        loss=record.loss if finite else readings.loss,
        eval_loss=record.eval_loss if evaluated else readings.eval_loss,
        diverged_pairs=readings.diverged_pairs
        + int(record.extra.get("diverged_pairs", 0)),
        nonfinite_losses=readings.nonfinite_losses + (not finite),
    )


def after_event(readings: Readings, event: Event) -> Readings:
    """The readings after something befell the run."""
    match event.kind:
        case "checkpoint":
            seconds = float(event.fields.get("seconds", 0.0))
            return dataclasses.replace(
                readings, checkpoint_time=event.time, checkpoint_seconds=seconds
            )
        case "checkpoint_failed":
            failures = readings.checkpoint_failures + 1
            return dataclasses.replace(readings, checkpoint_failures=failures)
    return readings


def timed(readings: Readings, before: StepRecord | None) -> Readings:
    """The readings with the time of a step, over those since an earlier record."""
    last = readings.record
    if last is None or before is None or last.outer_step <= before.outer_step:
        return readings
    seconds = last.wall_seconds - before.wall_seconds
    each = seconds / (last.outer_step - before.outer_step)
    return dataclasses.replace(readings, step_seconds=each)


def values(readings: Readings, now: float) -> dict[str, float]:
    """The values of the gauges, by name; what is not known is left out.

    Args:
        readings: What the run has told.
        now: Seconds since 1970.
    """
    found = {gauge.name: gauge.value(readings, now) for gauge in GAUGES}
    return {
        name: float(value)
        for name, value in found.items()
        if value is not None and math.isfinite(value)
    }
