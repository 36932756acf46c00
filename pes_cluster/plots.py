"""Charts of runs, from their records."""

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

Line = dict[str, Any]
Series = tuple[np.ndarray, np.ndarray]

_COLOURS = ("#0b6e99", "#d1495b", "#edae49", "#3d8361", "#6f4e9c", "#7a7a7a", "#b05c2e")
_STYLE: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": cycler(color=_COLOURS),
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
    with plt.rc_context(_STYLE):
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
                axes.plot(*smoothed(points), color=_COLOURS[0], linewidth=1.8)
            else:
                axes.plot(*points, linewidth=1.8)
            axes.set_ylabel(label)
            _choose_scale(axes, [points[1]])
        grid[0, 0].set_title(title)
        grid[-1, 0].set_xlabel("Outer step")
        _save(figure, path)


def comparison(runs: Mapping[str, Sequence[Line]], path: pathlib.Path) -> None:
    """Draws several runs, by label, against the inner steps that they were charged.

    Evaluations are drawn; where no run has two of them, smoothed window losses.
    """
    drawn = {
        label: series(records, "inner_steps", "eval_loss")
        for label, records in runs.items()
    }
    ylabel = "Loss of a full episode"
    if all(len(x) < 2 for x, _ in drawn.values()):
        ylabel = "Loss of a window, smoothed"
        drawn = {
            label: smoothed(series(records, "inner_steps", "loss"))
            for label, records in runs.items()
        }
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(figsize=(8.4, 4.2), layout="constrained")
        for label, (x, y) in drawn.items():
            # A single evaluation is no line; it is shown as a point.
            marker = "o" if len(x) == 1 else None
            axes.plot(x, y, label=label, linewidth=1.8, marker=marker)
        axes.set_xlabel("Inner steps charged, all particles")
        axes.set_ylabel(ylabel)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        _choose_scale(axes, [y for _, y in drawn.values()])
        ends = [x[-1] for x, _ in drawn.values() if len(x)]
        if ends and max(ends) > _LOG_RATIO * min(ends):
            axes.set_xscale("log")  # Else the cheap runs are a line at the left edge.
        figure.legend(loc="outside right upper")
        _save(figure, path)


def series(records: Sequence[Line], x: str, y: str) -> Series:
    """Returns two fields of the records that have both, as arrays."""
    points = [
        (record[x], record[y])
        for record in records
        if record.get(x) is not None and record.get(y) is not None
    ]
    columns = np.asarray(points, dtype=float).reshape(-1, 2)
    return columns[:, 0], columns[:, 1]


def smoothed(points: Series) -> Series:
    """Returns running means over a fiftieth of the points, each at its middle."""
    x, y = points
    width = max(len(x) // 50, 1)
    kernel = np.full(width, 1 / width)
    if width == 1:
        return points
    return np.convolve(x, kernel, "valid"), np.convolve(y, kernel, "valid")


def _choose_scale(axes: Axes, values: Sequence[np.ndarray]) -> None:
    seen = np.concatenate([value[np.isfinite(value)] for value in values])
    if len(seen) and seen.min() > 0 and seen.max() / seen.min() > _LOG_RATIO:
        axes.set_yscale("log")


def _save(figure: Figure, path: pathlib.Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(path)
    finally:
        plt.close(figure)
