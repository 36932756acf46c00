"""Charts of runs, from their records."""

import contextlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # No display is asked for, whatever the machine has.

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

Line = Mapping[str, Any]
Series = tuple[np.ndarray, np.ndarray]

COLOURS = ("#0b6e99", "#d1495b", "#edae49", "#3d8361", "#6f4e9c", "#7a7a7a", "#b05c2e")
STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=COLOURS),
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "font.size": 10,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "savefig.dpi": 150,
}
_LOG_RATIO = 30.0  # A wider range than this is shown on a logarithmic axis.


def curves(records: Sequence[Line], title: str, path: pathlib.Path) -> None:
    """Draws a run: its evaluations, where there are several, and its window losses."""
    evaluated = series(records, "outer_step", "eval_loss")
    window = series(records, "outer_step", "loss")
    panels = [("Loss of a full episode", evaluated)] if len(evaluated[0]) > 1 else []
    panels.append(("Loss of a window", window))
    with plt.rc_context(STYLE):
        figure, grid = plt.subplots(
            len(panels),
            1,
            figsize=(7.2, 1.2 + 2.7 * len(panels)),
            sharex=True,
            squeeze=False,
            layout="constrained",
        )
        for axes, (label, points) in zip(grid[:, 0], panels, strict=True):
            if label.endswith("window"):
                axes.plot(*points, linewidth=0.6, alpha=0.35)
                axes.plot(*smoothed(points), color=COLOURS[0], linewidth=1.8)
            else:
                axes.plot(*points, linewidth=1.8)
            axes.set_ylabel(label)
            choose_scale(axes, [points[1]])
        grid[0, 0].set_title(title, parse_math=False)
        grid[-1, 0].set_xlabel("Outer step")
        _save(figure, path)


def comparison(runs: Mapping[str, Sequence[Line]], path: pathlib.Path) -> None:
    """Draws several runs, by label, against the inner steps that they were charged.

    Evaluations are drawn; where no run has two of them, smoothed window losses. The
    records are thinned ones.
    """
    ylabel, drawn = compared(runs, "inner_steps")
    with plt.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8.4, 4.2), layout="constrained")
        for label, (x, y) in drawn.items():
            # A single evaluation is no line; it is shown as a point.
            marker = "o" if len(x) == 1 else None
            axes.plot(x, y, label=label, linewidth=1.8, marker=marker)
        axes.set_xlabel("Inner steps charged, all particles")
        axes.set_ylabel(ylabel)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        choose_scale(axes, [y for _, y in drawn.values()])
        spread_out(axes, [x for x, _ in drawn.values()])
        for text in figure.legend(loc="outside right upper").get_texts():
            text.set_parse_math(False)  # A run may be called $x$.
        _save(figure, path)


def compared(
    runs: Mapping[str, Sequence[Line]], x: str
) -> tuple[str, dict[str, Series]]:
    """What runs are compared by: its name, and each one's curve against a field."""
    drawn = {label: series(runs[label], x, "eval_loss") for label in runs}
    if any(len(x) > 1 for x, _ in drawn.values()):
        return "Loss of a full episode", drawn
    means = {label: averaged(runs[label], x, "mean_loss") for label in runs}
    return "Loss of a window, smoothed", means


def series(records: Sequence[Line], x: str, y: str) -> Series:
    """Returns two fields of the records that have both, as arrays."""
    points = [
        (record[x], record[y])
        for record in records
        if record.get(x) is not None and record.get(y) is not None
    ]
    columns = np.asarray(points, dtype=float).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def smoothed(points: Series, weights: np.ndarray | None = None) -> Series:
    """Returns running means over a fiftieth of the points, each at its middle."""
    x, y = points
    width = max(len(x) // 50, 1)
    if width == 1:
        return points
    weights = np.ones(len(x)) if weights is None else weights
    kernel = np.ones(width)
    total = np.convolve(weights, kernel, "valid")
    means = (np.convolve(values * weights, kernel, "valid") for values in points)
    return next(means) / total, next(means) / total


def averaged(records: Sequence[Line], x: str, y: str) -> Series:
    """Returns a smoothed field of thinned records, each of which stands for several."""
    points, weights = series(records, x, y), series(records, "steps", y)[0]
    # One that stands for no step would weigh nothing; there is none, but in old files.
    return smoothed(points, np.maximum(weights, 1.0))


def choose_scale(axes: Axes, values: Sequence[np.ndarray]) -> None:
    """Makes the y axis logarithmic where the values need it and allow it."""
    seen = np.concatenate([np.zeros(0), *(v[np.isfinite(v)] for v in values)])
    if len(seen) and seen.min() > 0 and seen.max() / seen.min() > _LOG_RATIO:
        axes.set_yscale("log")


def spread_out(axes: Axes, places: Sequence[np.ndarray]) -> None:
    """Makes the x axis logarithmic where short curves would lie at its left edge."""
    ends = [x[-1] for x in places if len(x)]
    if ends and max(ends) > _LOG_RATIO * min(ends):
        axes.set_xscale("log")


def _save(figure: Figure, path: pathlib.Path) -> None:
    """Writes a chart whole or not at all."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(scratch, format="png")
        scratch.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)
        raise
    finally:
        plt.close(figure)
