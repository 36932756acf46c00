"""Charts as SVG elements in the page's own fonts, and its light or dark colours."""

import dataclasses
import io
import re
from collections.abc import Callable, Sequence
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from pes_cluster.metrics.history import Happened
from pes_cluster.plots import STYLE, Series, choose_scale, spread_out
from pes_cluster.report.elements import Element, node
from pes_cluster.report.incidents import clock

_WIDTH, _HEIGHT = 5.4, 2.9  # Inches of 72 units.
_INK, _GRID = "#010203", "#040506"  # Stand for the page's own.
_CURVES = tuple(f"#0a0b{index:02x}" for index in range(7))
_NAMES = {_INK: "ink", _GRID: "grid"} | {
    colour: f"curve-{index}" for index, colour in enumerate(_CURVES)
}
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_STYLE = STYLE | {
    "axes.edgecolor": _INK,
    "axes.facecolor": "none",
    "axes.prop_cycle": cycler(color=_CURVES),
    "axes.spines.left": False,
    "figure.facecolor": "none",
    "font.size": 11,
    "grid.color": _GRID,
    "path.simplify_threshold": 0.3,
    "svg.fonttype": "none",
    "svg.hashsalt": "pes_cluster",
    "text.color": _INK,
    "xtick.color": _INK,
    "xtick.major.size": 3,
    "ytick.color": _INK,
    "ytick.major.size": 0,
}
_DOT = (5, ".")
KINDS = {
    # Of the events that are drawn, from below: the colour, the marker.
    "finished": _DOT,
    "stopped": _DOT,
    "failed": (1, "s"),
    "checkpoint": (0, "|"),
    "checkpoint_failed": (1, "P"),
    "moved": _DOT,
    "joined": _DOT,
    "drained": _DOT,
    "recovered": (3, "o"),
    "lost": (1, "X"),
    "fell_back": (1, "<"),
    "refused": (2, "v"),
    "scaled": (2, "D"),
    "resumed": (4, ">"),
    "started": _DOT,
}


@dataclasses.dataclass(frozen=True)
class Curve:
    """One line of a chart.

    Attributes:
        points: Where it goes.
        number: Of its colour and dashes; the same run has the same in all charts.
        faint: A thin line behind the others.
    """

    points: Series
    number: int = 0
    faint: bool = False


def lines(curves: Sequence[Curve], description: str, spread: bool = False) -> Element:
    """Returns a chart of curves.

    Args:
        curves: At least one has a point.
        description: For who does not see it.
        spread: Whether short curves may be spread out by a logarithmic x axis.
    """
    several = len({curve.number for curve in curves}) > 1

    def draw(axes: Axes) -> None:
        for curve in curves:
            x, y = curve.points
            axes.plot(
                x,
                y,
                color=_colour(curve.number),
                linestyle=_DASHES[curve.number % len(_DASHES)] if several else "-",
                linewidth=0.7 if curve.faint else 1.8,
                alpha=0.4 if curve.faint else 1.0,
                zorder=2.0 if curve.faint else 2.5,
                marker="o" if len(x) == 1 else None,
                markersize=4,
            )
        choose_scale(axes, [curve.points[1] for curve in curves])
        if spread:
            spread_out(axes, [curve.points[0] for curve in curves])

    return _svg(draw, description, _HEIGHT)


def swatch(number: int) -> Element:
    """Returns the sample of a line that a legend shows."""
    dashes = ("", "6 3", "2 2", "7 3 2 3")[number % len(_DASHES)]
    line = node("path", d="M 1 5 H 27", class_=_NAMES[_colour(number)])
    line.set("stroke-dasharray", dashes or "none")
    return node("svg", line, viewBox="0 0 28 10", class_="swatch", aria_hidden="true")


def timeline(events: Sequence[Happened], description: str) -> Element:
    """Returns a chart of what befell a run, a row for each kind, over its time.

    Events of other kinds than `KINDS` are not drawn.
    """
    seconds, kinds = clock(events), [str(event.get("event")) for event in events]
    rows = [kind for kind in KINDS if kind in kinds]

    def draw(axes: Axes) -> None:
        for row, kind in enumerate(rows):
            colour, marker = KINDS[kind]
            at = [s for s, other in zip(seconds, kinds, strict=True) if other == kind]
            axes.plot(
                at,
                np.full(len(at), row),
                linestyle="none",
                marker=marker,
                markersize=8 if marker != "." else 10,
                markeredgewidth=1.6 if marker == "|" else 0.0,
                color=_colour(colour),
                clip_on=False,
            )
        axes.set_yticks(range(len(rows)), [kind.replace("_", " ") for kind in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)

    height = 0.6 + 0.26 * len(rows)
    return _svg(draw, description, height, left=0.27, number=_seconds, rows=True)


def _colour(number: int) -> str:
    return _CURVES[number % len(_CURVES)]


def _svg(
    draw: Callable[[Axes], None],
    description: str,
    height: float,
    left: float = 0.12,
    number: Callable[[float, int], str] | None = None,
    rows: bool = False,
) -> Element:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH, height))
        bottom, top = 0.33 / height, 1 - 0.12 / height
        axes = figure.add_axes((left, bottom, 0.955 - left, top - bottom))
        draw(axes)
        axes.grid(False, axis="x")
        _label(axes, number or _short, rows)
        file = io.BytesIO()
        keys = ("Date", "Creator", "Format", "Type")
        figure.savefig(file, format="svg", metadata=dict.fromkeys(keys))
    return _adapted(ElementTree.fromstring(file.getvalue()), description)


def _label(axes: Axes, number: Callable[[float, int], str], rows: bool) -> None:
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(number))
    if axes.get_xscale() == "linear":
        axes.xaxis.set_major_locator(MaxNLocator(5))
    if rows:
        return
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_minor_locator(NullLocator())
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))


def _short(value: float, position: int = 0) -> str:
    """1200000 is 1.2M, 0.00001 is 1e-05."""
    del position
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if size <= abs(value) < 1e12:
            unit = 1e3 if letter == "k" else size
            return f"{value / unit:.4g}{letter}"
    return f"{value:.4g}"


def _seconds(value: float, position: int = 0) -> str:
    del position
    return f"{value:.4g} s" if abs(value) < 600 else f"{value / 60:.4g} min"


def _adapted(root: Element, description: str) -> Element:
    """Rids an SVG of what names its maker, and gives it the colours of the page."""
    for parent in root.iter():
        for child in list(parent):
            if _is_nothing(child):
                parent.remove(child)
    for one in root.iter():
        one.tag, one.tail = one.tag.rpartition("}")[2], None
        one.text = one.text if one.tag == "text" else None
        given = dict(one.attrib)
        one.attrib.clear()
        for name, value in sorted(given.items(), key=_style_first):
            _keep(one, name.rpartition("}")[2], value)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("class", "chart")
    root.set("aria-label", description)
    return root


def _style_first(given: tuple[str, str]) -> bool:
    return given[0] != "style"


def _is_nothing(one: Element) -> bool:
    """Whether this part of a chart is not seen."""
    words = one.tag.rpartition("}")[2] in ("metadata", "style")
    return words or one.get("style") == "fill: none"


def _keep(one: Element, name: str, value: str) -> None:
    if name == "id" and one.tag not in ("clipPath", "path"):
        return  # Matplotlib's words for its parts, the same in every chart.
    if name == "transform" and value.startswith("rotate(-0 "):
        return
    if name == "d" or one.tag in ("use", "text", "rect"):
        value = re.sub(r"(\d+\.\d)\d+", r"\1", " ".join(value.split()))
    if name == "style":
        value = re.sub(r"font(-family|-size)?: [^;]*;? ?", "", value)
        for colour, word in _NAMES.items():
            value = value.replace(colour, f"var(--{word})")
        tick = one.tag == "use" and "--ink" in value
        if tick or one.tag == "text" or "--grid" in value:
            # A tick, its number, a line behind: the same in all charts.
            one.set("class", _part(one.tag, value))
            return
    if value and not (name == "clip-path" and one.get("class") == "grid"):
        one.set(name, value)


def _part(tag: str, style: str) -> str:
    """What the style sheet calls a part of a chart."""
    if tag == "text":
        return "above" if "middle" in style else "beside"
    return "grid" if "--grid" in style else "tick"
