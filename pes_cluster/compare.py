"""Several runs side by side: one row each, and one chart; from their histories."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Sequence

from pes_cluster.metrics.history import History, Record
from pes_cluster.run_directory import RunDirectory, RunDirectoryError


@dataclasses.dataclass(frozen=True)
class Row:
    """One run of a comparison; numbers are None where there is none.

    Attributes:
        run: A label that tells it from the others.
        status: See `History`.
        eval_loss: The last evaluation's.
        loss: The last window's.
        outer_steps: Updates done.
        inner_steps: Inner steps charged, all particles counted.
        particles: Behind the last estimate.
        shards: At the last step.
        seconds: Over all sittings.
        steps_per_second: Updates, over all sittings.
        theta: The first digits of theta's hash; "" before its end.
    """

    run: str
    status: str
    eval_loss: float | None = None
    loss: float | None = None
    outer_steps: int = 0
    inner_steps: int = 0
    particles: int | None = None
    shards: int | None = None
    seconds: float | None = None
    steps_per_second: float | None = None
    theta: str = ""


def read(paths: Sequence[str | os.PathLike[str]]) -> list[History]:
    """Reads run directories; a run that is named twice is read once.

    Raises:
        RunDirectoryError: A path holds no run, or one without records.
    """
    by_path = {pathlib.Path(path).resolve(): RunDirectory(path) for path in paths}
    unique, histories = list(by_path), [one.history() for one in by_path.values()]
    for directory, history in zip(by_path.values(), histories, strict=True):
        if not history.records:
            raise RunDirectoryError(f"{directory.metrics}: holds no records yet")
    return [
        dataclasses.replace(history, name=label)
        for history, label in zip(histories, _labels(unique), strict=True)
    ]


def holder(paths: Sequence[str | os.PathLike[str]]) -> pathlib.Path:
    """The directory that holds all of the runs."""
    parents = [pathlib.Path(path).resolve().parent for path in paths]
    return pathlib.Path(os.path.commonpath(parents))


def rows(histories: Iterable[History]) -> list[Row]:
    """Returns the runs' rows: the least loss first, those without one last."""
    worst = float("inf")
    made = [_row(history) for history in histories]
    return sorted(
        made, key=lambda row: worst if row.eval_loss is None else row.eval_loss
    )


def chart(histories: Iterable[History], path: pathlib.Path) -> None:
    """Draws runs in one chart.

    Raises:
        RunDirectoryError: None of them has a record yet.
        OSError: The chart cannot be written.
    """
    records = {one.name: one.records for one in histories if one.records}
    if not records:
        raise RunDirectoryError(NO_RECORDS)
    from pes_cluster import plots  # Loads matplotlib, which no table needs.

    plots.comparison(records, path)


NO_RECORDS = "there are no records to show yet"


def plot(path: str | os.PathLike[str]) -> pathlib.Path:
    """Draws the chart of one run and returns where it lies.

    Raises:
        RunDirectoryError: The path holds no run.
        OSError: The chart cannot be written.
    """
    directory = RunDirectory(path)
    drawn = directory.plots / "loss.png"
    from pes_cluster import plots

    plots.curves(directory.records(), directory.saved_config().name, drawn)
    return drawn


def _row(history: History) -> Row:
    row = Row(history.name, history.status, theta=history.theta_sha256[:8])
    if not history.records:
        return row
    last: Record = history.records[-1]
    evaluated = [one["eval_loss"] for one in history.records if "eval_loss" in one]
    seconds, steps = last.get("wall_seconds"), int(last.get("outer_step") or 0)
    return dataclasses.replace(
        row,
        eval_loss=next(
            (loss for loss in reversed(evaluated) if loss is not None), None
        ),
        loss=last.get("loss"),
        outer_steps=steps,
        inner_steps=int(last.get("inner_steps") or 0),
        particles=_whole(last.get("particles")),
        shards=_whole(last.get("shards")),
        seconds=seconds,
        steps_per_second=steps / seconds if seconds else None,
    )


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _labels(paths: Sequence[pathlib.Path]) -> list[str]:
    """Returns the last parts of the paths, as many as tell them apart."""
    depth = 1
    names = [path.name for path in paths]
    while len(set(names)) < len(paths):
        depth += 1
        names = ["/".join(path.parts[-depth:]) for path in paths]
    return names
