"""HTML as a tree of elements: whatever a text holds, it stays text."""

import re
from collections.abc import Sequence
from xml.etree import ElementTree

Element = ElementTree.Element
Child = str | Element | None

# Neither HTML nor a terminal's colours belong into a text.
_UNPRINTABLE = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def node(tag: str, *children: Child, **attributes: str) -> Element:
    """Returns an element; `class_` is class, and `aria_label` aria-label."""
    made = Element(tag)
    for name, value in attributes.items():
        made.set(name.rstrip("_").replace("_", "-"), plain(value))
    for child in children:
        if isinstance(child, str):
            _add_text(made, plain(child))
        elif child is not None:
            made.append(child)
    return made


def table(
    caption: str,
    headings: Sequence[str],
    rows: Sequence[Sequence[Child]],
    numbers: Sequence[str] = (),
    class_: str = "",
) -> Element:
    """Returns a table whose first column names the rows.

    Args:
        caption: Says what it shows.
        headings: Of the columns.
        rows: Their cells.
        numbers: The headings of the columns that are set to the right.
        class_: For the style sheet.
    """
    sides = ["number" if heading in numbers else "words" for heading in headings]
    head = [
        node("th", heading, scope="col", class_=side)
        for heading, side in zip(headings, sides, strict=True)
    ]
    body = [
        node("tr", *map(_cell, row, sides, ["row", *[""] * (len(row) - 1)]))
        for row in rows
    ]
    made = node(
        "table",
        node("caption", caption),
        node("thead", node("tr", *head)),
        node("tbody", *body),
    )
    # It can be scrolled by keyboard where it is wider than the screen.
    return node(
        "div",
        made,
        class_=f"scroll {class_}".strip(),
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def document(root: Element) -> str:
    """Returns a page as text."""
    name_apart(root)
    text = ElementTree.tostring(root, encoding="unicode", method="html")
    return f"<!doctype html>\n{text}\n"


def name_apart(root: Element) -> None:
    """Makes the names within each chart of a page its own.

    Their maker gives the same names to the same parts of all charts.
    """
    for place, chart in enumerate(root.iter("svg")):
        for one in chart.iter():
            for name, value in one.attrib.items():
                if name == "id":
                    one.set(name, f"c{place}-{value}")
                elif name != "aria-label" and value.startswith(("#", "url(#")):
                    one.set(name, value.replace("#", f"#c{place}-", 1))


def plain(text: str) -> str:
    """Returns a text without what cannot be shown."""
    return _UNPRINTABLE.sub("", text)


def _cell(content: Child, side: str, scope: str) -> Element:
    if scope:
        return node("th", content, scope=scope, class_=side)
    return node("td", content, class_=side)


def _add_text(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text
