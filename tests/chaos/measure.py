"""What a fault cost, from when it struck and what the run wrote down; pure."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

NOTICED = ("lost", "drained", "moved", "fell_back", "checkpoint_failed", "resumed")
RECOVERED = ("recovered", "moved", "drained", "resumed")

Event = Mapping[str, Any]  # A line of events.jsonl.


@dataclasses.dataclass(frozen=True)
class Injection:
    """A fault that struck.

    Attributes:
        kind: What.
        victim: Whom.
        step: Outer steps that were done.
        time: When, in Unix seconds.
    """

    kind: str
    victim: str
    step: int
    time: float


@dataclasses.dataclass(frozen=True)
class Row:
    """What it cost; None where the run did not say, or nothing had to be done.

    Attributes:
        injection: The fault.
        detected: Seconds until the run noticed.
        recovered: Seconds until what was lost was there again.
        caught_up: Seconds until an outer step was done that had not been before.
        replayed: Outer steps that were made a second time.
    """

    injection: Injection
    detected: float | None
    recovered: float | None
    caught_up: float | None
    replayed: int | None


def rows(
    injections: Sequence[Injection],
    events: Sequence[Event],
    progress: Sequence[tuple[float, int]],
) -> list[Row]:
    """Ascribes every event to the last fault before it.

    Args:
        injections: In order.
        events: In order.
        progress: When each number of outer steps was first seen.
    """
    ends = [*(injection.time for injection in injections[1:]), float("inf")]
    return [
        _row(
            one,
            [event for event in events if one.time <= event["time"] < end],
            next((t for t, step in progress if t > one.time and step > one.step), None),
        )
        for one, end in zip(injections, ends, strict=True)
    ]


def _row(one: Injection, events: list[Event], caught_up: float | None) -> Row:
    def since(time: float | None) -> float | None:
        return None if time is None else time - one.time

    def times(kinds: Sequence[str]) -> list[float]:
        return [event["time"] for event in events if event["event"] in kinds]

    return Row(
        injection=one,
        detected=since(min(times(NOTICED), default=None)),
        recovered=since(max(times(RECOVERED), default=None)),
        caught_up=since(caught_up),
        replayed=_replayed(one, events),
    )


def _replayed(one: Injection, events: list[Event]) -> int | None:
    resumed = [event["outer_step"] for event in events if event["event"] == "resumed"]
    if resumed:
        return max(one.step - resumed[0], 0)
    rebuilt = [event["replayed"] for event in events if event["event"] == "recovered"]
    return max(rebuilt, default=None)


def table(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> str:
    """Lines of text in columns; None is a dash, and fractions have one digit."""
    cells = [list(columns), *([_cell(value) for value in line] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        for line in cells
    )
    return "\n".join(line.rstrip() for line in padded)


def as_json(row: Row) -> str:
    """The row as one JSON object."""
    return json.dumps(dataclasses.asdict(row))


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
