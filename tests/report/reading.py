"""A page as a reader of HTML finds it."""

import html.parser

# Those of HTML that have no end; an SVG's have.
VOID = {"meta", "link", "input", "br", "hr", "img"}


class Reader(html.parser.HTMLParser):
    """Takes a page in, and fails where its tags do not nest.

    Attributes:
        tags: In order of their begin.
        attributes: Of all tags: (tag, name, value).
        texts: Between the tags, by the tag around them.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self._open[-1], data.strip()))

    def of(self, tag: str) -> list[str]:
        """The texts directly in a tag."""
        return [text for around, text in self.texts if around == tag]

    def values(self, *names: str) -> list[str]:
        """The values of attributes."""
        return [value for _, name, value in self.attributes if name in names]
