"""What a fault cost, from when it struck and what the run wrote down; pure."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.chaos.schedule import DISK_FULL, DRAIN_NOTICE, ENDS_DRIVER

REBUILT = ("recovered", "drained")
AGAIN = ("resumed", "fell_back")
NOTICED = ("lost", "checkpoint_failed", *REBUILT, *AGAIN)
OF_DISK = ("checkpoint_failed", "checkpoint")

Event = Mapping[str, Any]  # A line of events.jsonl.
Progress = Sequence[tuple[float, int]]  # When each number of outer steps was seen.


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
        recovered: Seconds until what was lost was there again: blocks rebuilt, steps
            made again after a return to a checkpoint, a checkpoint written again.
        caught_up: Seconds until an outer step was done, all that was lost being back,
            that had not been done before.
        replayed: Outer steps that were made a second time.
    """

    injection: Injection
    detected: float | None
    recovered: float | None
    caught_up: float | None
    replayed: int | None


def rows(
    injections: Sequence[Injection], events: Sequence[Event], progress: Progress
) -> list[Row]:
    """Ascribes every event to the last fault before it that it can come from.

    Args:
        injections: In order.
        events: In order.
        progress: In order; the number falls where a run goes back to a checkpoint.
    """
    caused: list[list[Event]] = [[] for _ in injections]
    for event in events:
        cause = _cause(injections, event)
        if cause is not None:
            caused[cause].append(event)
    return [
        _row(one, own, progress) for one, own in zip(injections, caused, strict=True)
    ]


def _cause(injections: Sequence[Injection], event: Event) -> int | None:
    for index in reversed(range(len(injections))):
        one = injections[index]
        if one.time <= event["time"] and _can_cause(one.kind, event["event"]):
            return index
    return None


def _can_cause(fault: str, event: str) -> bool:
    if event in OF_DISK:
        return fault == DISK_FULL
    if event == "drained":
        return fault == DRAIN_NOTICE
    if event == "resumed":
        return fault in ENDS_DRIVER
    return fault != DISK_FULL


def _row(one: Injection, events: Sequence[Event], progress: Progress) -> Row:
    def since(time: float | None) -> float | None:
        return None if time is None else time - one.time

    recovered = max(_ends(events, progress), default=None)
    # A step that was all but done when the fault struck does not count.
    after = one.time if recovered is None else recovered
    new = [t for t, step in progress if t >= after and step > one.step]
    return Row(
        injection=one,
        detected=since(min(_times(events, NOTICED), default=None)),
        recovered=since(recovered),
        caught_up=since(new[0] if new else None),
        replayed=_replayed(one, events),
    )


def _ends(events: Sequence[Event], progress: Progress) -> list[float]:
    """When each thing that had to be brought back was back."""
    ends = _times(events, REBUILT)
    for again in _times(events, AGAIN)[-1:]:
        ends += [t for t, _ in progress if t > again][:1]
    for failed in _times(events, ["checkpoint_failed"])[-1:]:
        ends += [t for t in _times(events, ["checkpoint"]) if t > failed][:1]
    return ends


def _times(events: Iterable[Event], kinds: Sequence[str]) -> list[float]:
    return [event["time"] for event in events if event["event"] in kinds]


def _replayed(one: Injection, events: Sequence[Event]) -> int | None:
    back = [event["outer_step"] for event in events if event["event"] in AGAIN]
    if back:
        return max(one.step - back[0], 0)
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


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)
