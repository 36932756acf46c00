"""What is recorded of one outer step."""

import dataclasses
import json
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """One line of `metrics.jsonl`.

    Attributes:
        outer_step: Updates done, this one included.
        inner_steps: Inner steps charged since the run began, all particles counted.
        wall_seconds: Since the run began, over all its sittings.
        loss: Mean over particles of the window's loss.
        eval_loss: Mean full-episode loss of the updated, unperturbed theta; None where
            it was not evaluated.
        gradient_norm: Of the estimate; None from a learner.
        particles: How many stand behind the estimate.
        extra: Other means and counts by name ("accumulator_norm", "nonfinite").
    """

    outer_step: int
    inner_steps: int
    wall_seconds: float
    loss: float
    eval_loss: float | None
    gradient_norm: float | None
    particles: int
    extra: dict[str, float] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Returns one line of JSON; what is absent is left out, NaN is null."""
        fields: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name != "extra" and getattr(self, field.name) is not None
        }
        fields["wall_seconds"] = round(self.wall_seconds, 4)
        return json.dumps(
            {name: _finite(value) for name, value in (fields | self.extra).items()}
        )


def from_line(fields: dict[str, Any]) -> StepRecord:
    """Returns the record of a line of `metrics.jsonl`.

    Raises:
        ValueError: It is no record's.
    """
    names = {field.name for field in dataclasses.fields(StepRecord)} - {"extra"}
    # What is no finite number is null in the file.
    read = {n: math.nan if v is None else v for n, v in fields.items()}
    absent = {"loss": math.nan, "eval_loss": None, "gradient_norm": None}
    given: Any = absent | {n: v for n, v in read.items() if n in names}
    try:
        rest = {n: float(v) for n, v in read.items() if n not in names}
        return StepRecord(**given, extra=rest)
    except TypeError:
        raise ValueError("not a record") from None


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
