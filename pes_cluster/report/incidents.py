"""What befell a run, told as incidents: a loss and its recovery are one."""

import dataclasses
import datetime
from collections.abc import Sequence
from typing import Any

from pes_cluster.metrics.history import Happened

ENDS = ("finished", "stopped", "failed")
_TOLD = ("time", "event", "outer_step", "shard", "node", "seconds", "replayed")


@dataclasses.dataclass(frozen=True)
class Incident:
    """One line of what befell a run.

    Attributes:
        kind: An event's kind, in words.
        when: UTC, or "".
        outer_step: Updates done.
        where: Shard and host.
        back_after: Seconds until what was lost was back; None: nothing was lost, or it
            did not come back.
        replayed: Windows that were computed again.
        detail: What else there is to say.
    """

    kind: str
    when: str
    outer_step: int
    where: str = ""
    back_after: float | None = None
    replayed: int | None = None
    detail: str = ""


def incidents(events: Sequence[Happened]) -> list[Incident]:
    """Returns what befell a run, in order; checkpoints are left out."""
    told = [event for event in events if event.get("event") != "checkpoint"]
    answered: set[int] = set()
    found = []
    for index, event in enumerate(told):
        match event.get("event"):
            case "lost":
                back = _recovery(told, index, answered)
                answered |= {index for index in [back] if index is not None}
                found.append(_lost(event, None if back is None else told[back]))
            case "recovered" if index in answered:
                continue
            case "resumed":
                found.append(_resumed(event, _before(events, event)))
            case _:
                found.append(_incident(event))
    return found


def clock(events: Sequence[Happened]) -> list[float]:
    """Seconds of each event since the first; the time between sittings is left out."""
    passed, seconds, before = 0.0, [], None
    for event in events:
        now = _float(event.get("time"))
        if before is not None and event.get("event") != "resumed":
            passed += max(now - before, 0.0)
        before = now
        seconds.append(passed)
    return seconds


def _recovery(told: Sequence[Happened], lost: int, taken: set[int]) -> int | None:
    """Where the recovery of a loss is told; it is the shard's next."""
    shard = told[lost].get("shard")
    for index in range(lost + 1, len(told)):
        event = told[index]
        same = event.get("event") == "recovered" and event.get("shard") == shard
        if same and index not in taken:
            return index
    return None


def _lost(event: Happened, back: Happened | None) -> Incident:
    if back is None:
        made = _incident(event)
        return dataclasses.replace(made, detail=f"{made.detail}; not recovered")
    return dataclasses.replace(
        _incident(event),
        kind="lost and recovered",
        back_after=_float(back.get("seconds")),
        replayed=int(_float(back.get("replayed"))),
    )


def _resumed(event: Happened, before: Happened | None) -> Incident:
    """A sitting that began after one that ended, or after one that was killed."""
    made = _incident(event)
    if before is None or before.get("event") in ENDS:
        return made
    away = _float(event.get("time")) - _float(before.get("time"))
    return dataclasses.replace(
        made,
        kind="driver lost and resumed",
        back_after=round(away, 3),
        detail=f"counted from the last event before; {made.detail}".rstrip("; "),
    )


def _before(events: Sequence[Happened], event: Happened) -> Happened | None:
    index = next(i for i, one in enumerate(events) if one is event)
    return events[index - 1] if index else None


def _incident(event: Happened) -> Incident:
    shard, node = event.get("shard"), str(event.get("node") or "")
    places = [] if shard is None else [f"shard {shard}"]
    places += [f"node {node[:8]}"] if node else []
    rest = {n: v for n, v in event.items() if n not in _TOLD and v is not None}
    seconds, replayed = event.get("seconds"), event.get("replayed")
    return Incident(
        kind=str(event.get("event")).replace("_", " "),
        when=moment(event.get("time")),
        outer_step=int(_float(event.get("outer_step"))),
        where=", ".join(places),
        back_after=None if seconds is None else _float(seconds),
        replayed=None if replayed is None else int(_float(replayed)),
        detail="; ".join(_phrase(name, value) for name, value in rest.items()),
    )


def moment(seconds: Any) -> str:
    """Returns a time since 1970 in words, UTC; "" where there is none."""
    try:
        then = datetime.datetime.fromtimestamp(float(seconds), datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
    return f"{then:%Y-%m-%d %H:%M:%S}"


def _phrase(name: str, value: object) -> str:
    return str(value) if name == "reason" else f"{name} {value}"


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
