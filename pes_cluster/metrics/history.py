"""What a run has to show, as one value of bounded size.

Charts, tables and reports are made of histories alone: a run's directory may lie on
another machine, whose job sends its history as text.
"""

import base64
import binascii
import collections
import dataclasses
import json
import pathlib
import sys
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pydantic

from pes_cluster.metrics import jsonl
from pes_cluster.metrics.thinning import every_nth, thinned

Number = int | float | None
Record = dict[str, Number]
Happened = dict[str, str | int | float | None]

FIELDS = (
    "outer_step",
    "inner_steps",
    "wall_seconds",
    "loss",
    "eval_loss",
    "gradient_norm",
    "accumulator_norm",
    "particles",
    "shards",
)
CHECKPOINTS = 50  # So many of them are kept, evenly; of the other events the newest:
EVENTS = 400
LETTERS = 500  # Of a text, such as a reason.
VALUES = 64  # A larger leaf of theta is told by its mean and range.


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One array of theta.

    Attributes:
        path: Its place in theta.
        shape: Its shape.
        values: All of them, in row order; empty where they are many.
        least: The smallest number.
        mean: Of its numbers.
        most: The largest.
    """

    path: str
    shape: tuple[int, ...]
    values: tuple[Number, ...]
    least: Number
    mean: Number
    most: Number


@dataclasses.dataclass(frozen=True)
class History:
    """What a run has to show.

    Attributes:
        name: Tells it from others; by default its directory's.
        status: finished, stopped, failed, running or unfinished; of a job that has not
            begun, waiting.
        config: Its configuration, as YAML.
        records: Of its outer steps; thinned, see `thinning.py`.
        recorded: How many records there are in all.
        events: What befell it; of checkpoints some, of the rest the newest.
        counts: How many events there are in all, by kind.
        theta: The arrays of theta at its end.
        theta_sha256: Theta's hash; "" before its end.
        error: Why it failed.
    """

    name: str
    status: str = "unfinished"
    config: str = ""
    records: tuple[Record, ...] = ()
    recorded: int = 0
    events: tuple[Happened, ...] = ()
    counts: dict[str, int] = dataclasses.field(default_factory=dict)
    theta: tuple[Leaf, ...] = ()
    theta_sha256: str = ""
    error: str | None = None

    def to_json(self) -> str:
        """Returns one line of JSON; what is no finite number is null."""
        return _ADAPTER.dump_json(self).decode()

    def to_text(self) -> str:
        """Returns one short line, for a log."""
        return base64.b64encode(zlib.compress(self.to_json().encode(), 9)).decode()


_ADAPTER = pydantic.TypeAdapter(History)
_MOST = sys.float_info.max
_LARGEST = 50_000_000  # Bytes of JSON; a text that claims more is none of ours.


def from_json(text: str | bytes) -> History:
    """Returns the history of a line; what other versions added is passed over.

    Raises:
        ValueError: It is no history.
    """
    try:
        return _ADAPTER.validate_json(text)
    except ValueError:
        raise ValueError("not a history") from None


def from_text(text: str) -> History:
    """Returns the history of a line of a log; raises as `from_json`."""
    try:
        packed = base64.b64decode(text, validate=True)
        return from_json(zlib.decompressobj().decompress(packed, _LARGEST))
    except (binascii.Error, zlib.error):
        raise ValueError("not a history") from None


@dataclasses.dataclass(frozen=True)
class Files:
    """Where the files of a run lie that make its history."""

    config: pathlib.Path
    metrics: pathlib.Path
    events: pathlib.Path
    result: pathlib.Path


def read(name: str, files: Files) -> History:
    """Reads a run that may be going on.

    Raises:
        FileNotFoundError: There is no run.
        OSError: A file that is there cannot be read.
        ValueError: `result.json` is not understood.
    """
    there = [path.exists() for path in (files.config, files.metrics, files.events)]
    if not any(there):
        raise FileNotFoundError(files.config)
    config = files.config.read_text(encoding="utf-8") if there[0] else ""
    try:
        result = json.loads(files.result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        result = {}
    if not isinstance(result, dict):
        raise ValueError("holds no result")
    records = jsonl.lines(files.metrics) if there[1] else ()
    events = jsonl.lines(files.events) if there[2] else ()
    return made(name, config, records, events, result)


def made(
    name: str,
    config: str,
    records: Iterable[jsonl.Line],
    events: Iterable[jsonl.Line],
    result: dict[str, Any],
) -> History:
    """Makes a history of what lies in a run's directory, thinned and cut short."""
    counter = _Counter(records)
    kept = thinned(counter)
    happened = [event for event in events if isinstance(event.get("event"), str)]
    theta = result.get("theta")
    return History(
        name=name,
        status=str(result.get("status", "unfinished")),
        config=config,
        records=tuple(kept),
        recorded=counter.count,
        events=tuple(map(_told, _kept(happened))),
        counts=dict(collections.Counter(str(one["event"]) for one in happened)),
        theta=tuple(_leaves(theta if isinstance(theta, dict) else {})),
        theta_sha256=str(result.get("theta_sha256") or ""),
        error=_cut(result.get("error")),
    )


class _Counter:
    """Passes records on, with their known fields alone, and counts them."""

    def __init__(self, records: Iterable[jsonl.Line]) -> None:
        self._records, self.count = records, 0

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            self.count += 1
            yield {name: _number(record[name]) for name in FIELDS if name in record}


def _kept(events: list[jsonl.Line]) -> list[jsonl.Line]:
    saved = every_nth([e for e in events if e["event"] == "checkpoint"], CHECKPOINTS)
    others = [event for event in events if event["event"] != "checkpoint"][-EVENTS:]
    chosen = {id(event) for event in [*saved, *others]}
    return [event for event in events if id(event) in chosen]


def _told(event: jsonl.Line) -> Happened:
    return {
        name: _number(value) if isinstance(value, int | float) else _cut(value)
        for name, value in event.items()
    }


def _leaves(theta: dict[str, Any]) -> Iterator[Leaf]:
    for path, value in theta.items():
        leaf = np.asarray(value, dtype=float)
        finite = leaf[np.isfinite(leaf)]
        flat = leaf.ravel().tolist() if leaf.size <= VALUES else []
        yield Leaf(
            path=path,
            shape=leaf.shape,
            values=tuple(map(_number, flat)),
            least=float(finite.min()) if finite.size else None,
            mean=float(finite.mean()) if finite.size else None,
            most=float(finite.max()) if finite.size else None,
        )


def _number(value: Any) -> Number:
    """A finite number; None in any other's place."""
    known = isinstance(value, int | float) and -_MOST <= value <= _MOST
    return value if known else None


def _cut(value: Any) -> str | None:
    return None if value is None else str(value)[:LETTERS]
