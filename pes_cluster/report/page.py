"""The page that shows runs: one file that asks for nothing outside itself."""

import datetime
import importlib.resources
from collections.abc import Iterable, Sequence

from pes_cluster import compare
from pes_cluster.metrics.history import History
from pes_cluster.report import facts
from pes_cluster.report.elements import Child, Element, document, node, table
from pes_cluster.report.figures import swatch
from pes_cluster.report.sections import (
    checkpoints,
    curves,
    events,
    hyperparameters,
    number,
    settings,
)

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_COLUMNS = {
    "Run": "run",
    "Status": "status",
    "Eval loss": "eval_loss",
    "Window loss": "loss",
    "Updates": "outer_steps",
    "Inner steps": "inner_steps",
    "Particles": "particles",
    "Shards": "shards",
    "Wall seconds": "seconds",
    "Steps/s": "steps_per_second",
    "Lost": "lost",
    "Recovered": "recovered",
    "Theta hash": "theta",
}
_WORDS = ("Run", "Status", "Theta hash")


def page(histories: Sequence[History], title: str, made: datetime.datetime) -> str:
    """Returns the page of one run, or of several side by side, as HTML.

    Args:
        histories: Of the runs, by names that differ.
        title: What they are together.
        made: When.
    """
    several = len(histories) > 1
    parts = _overview(histories) if several else _single(histories[0])
    body = [_header(histories, title), _switch(), node("main", *parts)]
    if several:
        body += [
            _run(one, place, len(histories)) for place, one in enumerate(histories)
        ]
    return document(_html(title, [*body, _footer(made)]))


def _html(title: str, body: Iterable[Child]) -> Element:
    style = importlib.resources.files("pes_cluster.report") / "page.css"
    policy = node("meta", http_equiv="Content-Security-Policy", content=_POLICY)
    head = node(
        "head",
        node("meta", charset="utf-8"),
        policy,
        node("meta", name="viewport", content="width=device-width, initial-scale=1"),
        node("meta", name="color-scheme", content="light dark"),
        node("link", rel="icon", href="data:,"),
        node("title", f"{title} – report"),
        node("style", style.read_text(encoding="utf-8")),
    )
    return node("html", head, node("body", *body), lang="en")


def _header(histories: Sequence[History], title: str) -> Element:
    if len(histories) > 1:
        said: list[Child] = [f"{len(histories)} runs side by side"]
    else:
        said = [_pill(histories[0].status), " ", _what(histories[0])]
    return node("header", node("h1", title), node("p", *said, class_="lead"))


def _what(history: History) -> str:
    known = facts.facts(history)
    method = known.get("Estimator") or known.get("Learner")
    return " on ".join(part for part in (method, known.get("Task")) if part)


def _single(history: History) -> list[Child]:
    return [
        _facts(history),
        _totals([history]),
        _failure(history),
        *_rest(history, 0, "h2", on_page=1),
    ]


def _overview(histories: Sequence[History]) -> list[Child]:
    return [
        _totals(histories),
        node("h2", "Curves"),
        _legend(histories),
        *curves(
            {one.name: one.records for one in histories},
            range(len(histories)),
            len(histories),
        ),
        _methods(histories),
        _differences(histories),
    ]


def _run(history: History, place: int, on_page: int) -> Element:
    head = node("h2", swatch(place), " ", history.name, " ", _pill(history.status))
    body = [_facts(history), _failure(history), *_rest(history, place, "h3", on_page)]
    return node("section", head, *body, class_="run", id=f"run-{place}")


def _rest(history: History, place: int, level: str, on_page: int) -> list[Child]:
    drawn = curves({history.name: history.records}, [place], on_page)
    if not drawn:
        drawn = [node("p", "There are no records yet.", class_="note")]
    return [
        node(level, "Curves"),
        *drawn,
        _thinned(history),
        *hyperparameters(history, level),
        *events(history, level),
        *checkpoints(history, level),
        *settings(history, level),
    ]


def _thinned(history: History) -> Element | None:
    shown = len(history.records)
    if shown == history.recorded:
        return None
    told = f"Drawn from {shown} of {number(history.recorded)} records; "
    told += "but for evaluations, each point is the mean of those that it stands for."
    return node("p", told, class_="note")


def _totals(histories: Sequence[History]) -> Element:
    place = {one.name: index for index, one in enumerate(histories)}
    counts = {one.name: one.counts for one in histories}
    body: list[list[Child]] = []
    for row in compare.rows(histories):
        told = {kind: counts[row.run].get(kind, 0) for kind in ("lost", "recovered")}
        values = vars(row) | told
        cells: list[Child] = [number(values[name]) for name in _COLUMNS.values()]
        cells[1] = _pill(row.status)
        cells[-1] = node("code", row.theta) if row.theta else "–"
        if len(histories) > 1:
            link = node("a", row.run, href=f"#run-{place[row.run]}")
            cells[0] = node("span", swatch(place[row.run]), " ", link, class_="named")
        body.append(cells)
    right = [heading for heading in _COLUMNS if heading not in _WORDS]
    best = ", the least loss of a full episode first" if len(histories) > 1 else ""
    return table(f"Totals{best}", list(_COLUMNS), body, right)


def _legend(histories: Sequence[History]) -> Element:
    entries = [
        node("li", swatch(place), " ", history.name)
        for place, history in enumerate(histories)
    ]
    return node("ul", *entries, class_="legend", aria_label="Lines of the charts")


def _methods(histories: Sequence[History]) -> Element:
    known = [facts.facts(history) for history in histories]
    headings = list(dict.fromkeys(name for one in known for name in one))
    rows = [
        [heading, *(one.get(heading, "–") for one in known)] for heading in headings
    ]
    return table("What was run", ["", *(history.name for history in histories)], rows)


def _differences(histories: Sequence[History]) -> Element | None:
    found = facts.differing(list(histories))
    if not found:
        return node("p", "The settings do not differ.", class_="note")
    rows = [[node("code", path), *values] for path, values in found.items()]
    names = [history.name for history in histories]
    return table("Settings that differ", ["Setting", *names], rows)


def _facts(history: History) -> Element:
    pairs = [
        node("div", node("dt", name), node("dd", value))
        for name, value in facts.facts(history).items()
    ]
    return node("dl", *pairs, class_="facts")


def _failure(history: History) -> Element | None:
    if not history.error:
        return None
    return node("p", node("strong", "It failed: "), history.error, class_="failure")


def _pill(status: str) -> Element:
    return node("span", status, class_=f"status {status}")


def _switch() -> Element:
    """What curves are drawn against; by CSS alone."""
    choices = []
    for name, words in (("updates", "updates"), ("inner", "inner steps")):
        field = node("input", type="radio", name="axis", id=f"by-{name}")
        if name == "updates":
            field.set("checked", "checked")
        choices.append(node("label", field, f" {words}", for_=f"by-{name}"))
    legend = node("legend", "Curves against")
    return node("fieldset", legend, *choices, class_="switch")


def _footer(made: datetime.datetime) -> Element:
    moment = made.astimezone(datetime.UTC)
    return node(
        "footer", node("p", f"Made by pes_cluster, {moment:%Y-%m-%d %H:%M} UTC.")
    )
