"""The visible text of a page and of its elements by id, without scripts and elements that browsers hide."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr", "rect", "line", "use"}
)
INLINE = frozenset({"a", "b", "code", "em", "i", "kbd", "span", "strong", "time"})
"""What stands within a line of text; everything else begins a new word."""


class _Reader(HTMLParser):
    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted, self.depth, self.inside = wanted, 0, not wanted
        self.found: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if self.wanted and ("id", self.wanted) in attrs:
            self.inside, self.depth = True, 0
        self._separate(tag)
        if self.inside and tag not in VOID:
            self.depth += 1

    def handle_endtag(self, tag: str) -> None:
        if not self.inside or tag in VOID:
            return
        self._separate(tag)
        self.depth -= 1
        if self.wanted and self.depth <= 0:
            self.inside = False

    def _separate(self, tag: str) -> None:
        if self.inside and tag not in INLINE:
            self.found.append(" ")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.found.append(data)


def text_of(page: str, part: str = "") -> str:
    """Return the text of a page, or of the element with an id, with white space collapsed."""
    return " ".join("".join(_read(page, part).found).split())


def tags_of(page: str) -> list[str]:
    """Return the names of all elements of a page, in order."""
    return _read(page, "").tags


def _read(page: str, part: str) -> _Reader:
    reader = _Reader(part)
    reader.feed(page)
    return reader
