"""The parts of a page that show one run, or curves of several."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pes_cluster.metrics.history import History, Leaf, Record
from pes_cluster.plots import Series, averaged, series
from pes_cluster.report import facts
from pes_cluster.report.elements import Child, Element, node, table
from pes_cluster.report.figures import KINDS, Curve, lines, timeline
from pes_cluster.report.incidents import incidents, moment

_AXES = {"outer_step": "updates", "inner_steps": "inner"}
_WORDS = {"updates": "updates", "inner": "inner steps, all particles"}
_CHARTS = {
    "eval_loss": "Loss of a full episode",
    "mean_loss": "Loss of a window",
    "mean_gradient_norm": "Norm of the estimated gradient",
    "mean_accumulator_norm": "Norm of the accumulator",
}
_POINTS, _FEWEST = 1600, 50  # In all the lines of one chart, and in each.
_LATEST = 8  # Checkpoints in the table.


def curves(
    runs: Mapping[str, Sequence[Record]], places: Sequence[int], on_page: int = 1
) -> list[Child]:
    """Returns the charts of runs that have something to draw, against either axis.

    Args:
        runs: Records by name.
        places: A number for each run, which gives its colour.
        on_page: Runs on the page: the more, the fewer points has each line.
    """
    limit = max(_POINTS // max(on_page, 1), _FEWEST)
    found = [_figure(field, runs, places, limit) for field in _CHARTS]
    drawn = [one for one in found if one is not None]
    return [node("div", *drawn, class_="charts")] if drawn else []


def _figure(
    field: str, runs: Mapping[str, Sequence[Record]], places: Sequence[int], limit: int
) -> Element | None:
    charts = []
    for x, axis in _AXES.items():
        found = {name: series(records, x, field) for name, records in runs.items()}
        if not any(map(_worth_drawing, found.values())):
            return None
        drawn: list[Curve] = []
        for place, name in zip(places, runs, strict=True):
            if not found[name][1].any():  # No accumulator is kept, say.
                continue
            smooth = averaged(runs[name], x, field)
            curve = found[name] if field == "eval_loss" else smooth
            drawn.append(Curve(_at_most(limit, curve), place))
            if len(runs) == 1:
                drawn += _rough(runs[name], x, field, place, limit)
        words = f"{_CHARTS[field]} against {_WORDS[axis]}: {_ends(found)}"
        chart = lines(drawn, words, spread=axis == "inner")
        charts.append(node("div", chart, node("p", _WORDS[axis]), class_=f"by-{axis}"))
    return node("figure", node("figcaption", _CHARTS[field]), *charts)


def _worth_drawing(points: Series) -> bool:
    """Not where there is one point, or nothing but zeros."""
    return len(points[1]) > 1 and bool(points[1].any())


def _at_most(limit: int, points: Series) -> Series:
    """Every n-th point and the last."""
    x, y = points
    stride = max(-(-len(x) // limit), 1)
    places = np.unique([*range(0, len(x), stride), *range(len(x))[-1:]]).astype(int)
    return x[places], y[places]


def _rough(
    records: Sequence[Record], x: str, field: str, place: int, limit: int
) -> list[Curve]:
    """The points behind a smoothed curve, but for those that stand for few steps."""
    steps = [record.get("steps") or 0 for record in records]
    even = [
        record
        for record, count in zip(records, steps, strict=True)
        if 2 * count >= max(steps)
    ]
    if field == "eval_loss":
        return []
    return [Curve(_at_most(limit, series(even, x, field)), place, faint=True)]


def _ends(found: Mapping[str, Series]) -> str:
    """Says in words where curves begin and end."""
    told = []
    for name, (_, y) in found.items():
        if len(y):
            told.append(f"{name} from {number(float(y[0]))} to {number(float(y[-1]))}")
    return "; ".join(told)


def hyperparameters(history: History, level: str) -> list[Child]:
    """Theta at the end of a run, its small arrays in full."""
    if not history.theta:
        return []
    rows: list[list[Child]] = [_leaf(leaf) for leaf in history.theta]
    headings = ["Array", "Shape", "Values", "Least", "Mean", "Most"]
    made = table("Arrays of theta", headings, rows, ["Least", "Mean", "Most"])
    return [node(level, "Theta at the end"), made]


def _leaf(leaf: Leaf) -> list[Child]:
    shape = " × ".join(map(str, leaf.shape)) or "a number"
    values = ", ".join(number(value) for value in leaf.values) or "many"
    ends = [number(value) for value in (leaf.least, leaf.mean, leaf.most)]
    return [node("code", leaf.path), shape, values, *ends]


def events(history: History, level: str) -> list[Child]:
    """What befell a run: when, what, and how long it took to be made good."""
    head = node(level, "Failures and recoveries")
    found = incidents(history.events)
    quiet = all(one.kind in ("started", "finished") for one in found)
    if quiet:
        return [head, node("p", "Nothing befell this run.", class_="note")]
    rows: list[list[Child]] = [
        [
            one.when,
            one.kind,
            number(one.outer_step),
            one.where,
            "" if one.back_after is None else _seconds(one.back_after),
            "" if one.replayed is None else number(one.replayed),
            one.detail,
        ]
        for one in found
    ]
    headings = ["Time (UTC)", "Event", "Update", "Where", "Back after", "Replayed"]
    right = ["Update", "Back after", "Replayed"]
    return [
        head,
        _timeline(history),
        table("Events", [*headings, "More"], rows, right, class_="events"),
        _left_out(history),
    ]


def _timeline(history: History) -> Element | None:
    if not any(event.get("event") in KINDS for event in history.events):
        return None
    words = "What befell the run over its time: "
    words += ", ".join(f"{kind} {count}" for kind, count in history.counts.items())
    caption = "Time since its start; that between two sittings is left out"
    drawn = timeline(history.events, words)
    return node("figure", drawn, node("figcaption", caption), class_="timeline")


def _left_out(history: History) -> Element | None:
    others = sum(history.counts.values()) - history.counts.get("checkpoint", 0)
    shown = sum(one.get("event") != "checkpoint" for one in history.events)
    if shown == others:
        return None
    return node("p", f"The newest {shown} of {others} events.", class_="note")


def checkpoints(history: History, level: str) -> list[Child]:
    """How often a run was saved, and what that cost."""
    saved = [one for one in history.events if one.get("event") == "checkpoint"]
    if not saved:
        return []
    rows: list[list[Child]] = [
        [
            moment(one.get("time")),
            number(one.get("outer_step")),
            _seconds(one.get("seconds")),
            _bytes(one.get("bytes")),
        ]
        for one in reversed(saved[-_LATEST:])
    ]
    count = history.counts.get("checkpoint", len(saved))
    caption = f"{number(count)} checkpoints" + ("; the last" if count > 1 else "")
    headings = ["Time (UTC)", "Update", "Took", "Size"]
    return [
        node(level, "Checkpoints"),
        table(caption, headings, rows, headings[1:]),
    ]


def settings(history: History, level: str) -> list[Child]:
    """A run's configuration, as it would be written."""
    text = facts.shared(history)
    if not text:
        return []
    shown = node("pre", node("code", text), tabindex="0")
    opened = node("details", node("summary", "All settings, as YAML"), shown)
    if level == "h2":
        opened.set("open", "open")
    return [node(level, "Settings"), opened]


def number(value: Any) -> str:
    """A number as it is read: 3,000,000, 572.32, 1e-12."""
    if value is None or value == "":
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if 1e5 <= abs(value) < 1e9 else f"{value:.5g}"


def _seconds(value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    return f"{value:.2g} s" if value < 10 else f"{value:,.0f} s"


def _bytes(value: Any) -> str:
    if not isinstance(value, int | float):
        return "–"
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f} B"
