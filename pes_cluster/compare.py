"""Several runs side by side: one row each, and one chart."""

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from pes_cluster import plots
from pes_cluster.metrics import jsonl
from pes_cluster.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of a comparison; losses are None where there is none.

    Attributes:
        run: A label that tells it from the others.
        status: finished, stopped, failed, or unfinished.
        eval_loss: The last evaluation's.
        loss: The last window's.
        outer_steps: Updates done.
        inner_steps: Inner steps charged, all particles counted.
        seconds: Over all sittings.
    """

    run: str
    status: str
    eval_loss: float | None
    loss: float | None
    outer_steps: int
    inner_steps: int
    seconds: float


def compare(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[Row], pathlib.Path]:
    """Returns the runs' rows, best first, and where their chart was drawn.

    The chart lies in the directory that holds all of the runs.

    Raises:
        RunDirectoryError: A path holds no run.
        OSError: The chart cannot be written.
    """
    directories = [RunDirectory(path) for path in paths]
    labels = _labels([directory.path.resolve() for directory in directories])
    records = {
        label: directory.records()
        for label, directory in zip(labels, directories, strict=True)
    }
    rows = [
        _row(label, directory, records[label])
        for label, directory in zip(labels, directories, strict=True)
    ]
    parents = [directory.path.resolve().parent for directory in directories]
    chart = pathlib.Path(os.path.commonpath(parents)) / "comparison.png"
    plots.comparison(records, chart)
    worst = float("inf")
    rows.sort(key=lambda row: worst if row.eval_loss is None else row.eval_loss)
    return rows, chart


def plot(path: str | os.PathLike[str]) -> pathlib.Path:
    """Draws the chart of one run and returns where it lies; raises as `compare`."""
    directory = RunDirectory(path)
    chart = directory.plots / "loss.png"
    plots.curves(directory.records(), directory.saved_config().name, chart)
    return chart


def _row(label: str, directory: RunDirectory, records: list[jsonl.Line]) -> Row:
    result = directory.read_result() or {}
    last = records[-1]
    evaluated = [line for line in records if line.get("eval_loss") is not None]
    return Row(
        run=label,
        status=result.get("status", "unfinished"),
        eval_loss=evaluated[-1]["eval_loss"] if evaluated else None,
        loss=last.get("loss"),
        outer_steps=last["outer_step"],
        inner_steps=last["inner_steps"],
        seconds=last["wall_seconds"],
    )


def _labels(paths: list[pathlib.Path]) -> list[str]:
    """Returns the last parts of the paths, as many as tell them apart."""
    unique = list(dict.fromkeys(paths))
    depth = 1
    names = [path.name for path in unique]
    while len(set(names)) < len(unique):
        depth += 1
        names = ["/".join(path.parts[-depth:]) for path in unique]
    by_path = dict(zip(unique, names, strict=True))
    return [by_path[path] for path in paths]
