"""Regions: the parts of a page that a refresh replaces. A refresh gets only the regions that differ from the browser's. Pure.

A region is an element with an id and `data-region`, whose value is a digest of the element's content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

AUTO_REFRESH_HEADER = "X-Look-Again"
"""Header of automatic refreshes, which do not count as use of the session."""
KNOWN_REGIONS_HEADER = "X-Regions"
"""Header of a refresh: `id=digest` of each region that the browser shows, separated by commas."""
DIGEST_CHARS = 12

# Templates escape every value, so no attribute contains a bracket.
_OPENING = re.compile(r"<(?P<tag>\w+)\b(?=[^>]*\sid=\"(?P<id>[^\"]+)\")[^>]*\s(?P<mark>data-region(?:=\"\w*\")?)(?=[\s>])[^>]*>")
_TITLE = re.compile(r"<title>.*?</title>", re.DOTALL)
_PASSING = re.compile(r"(?<=\">)[^<]*(?=</time>)|(?<=name=\"csrf\" value=\")[^\"]*")
"""Matches what differs each time a page is rendered: relative times, and the masked token of forms."""


class Region(NamedTuple):
    """One region in a page's HTML."""

    id: str
    start: int
    end: int
    mark: tuple[int, int]
    """The start and end of its `data-region` attribute."""
    digest: str


def find_regions(html: str) -> Iterator[Region]:
    """Yield the regions of a page, in order. A region in a region belongs to the outer one."""
    place = 0
    while opening := _OPENING.search(html, place):
        place = _end_of_element(html, opening["tag"], opening.end())
        content = _PASSING.sub("", html[opening.end() : place])
        digest = hashlib.sha256(content.encode()).hexdigest()[:DIGEST_CHARS]
        yield Region(opening["id"], opening.start(), place, opening.span("mark"), digest)


def with_digests(html: str) -> str:
    """Return the page with each region's digest in its `data-region`."""
    parts, place = [], 0
    for region in find_regions(html):
        parts += [html[place : region.mark[0]], _mark(region)]
        place = region.mark[1]
    return "".join((*parts, html[place:]))


def changed_regions(html: str, known: str) -> str:
    """Return the title and the regions that differ from the `known` ones, as a page. `known`: the value of KNOWN_REGIONS_HEADER."""
    digests = dict(pair.rpartition("=")[::2] for pair in known.split(",") if "=" in pair)
    title = _TITLE.search(html)
    changed = (
        html[region.start : region.mark[0]] + _mark(region) + html[region.mark[1] : region.end]
        for region in find_regions(html)
        if digests.get(region.id) != region.digest
    )
    return "\n".join(("<!doctype html>", title[0] if title else "", *changed))


def _mark(region: Region) -> str:
    return f'data-region="{region.digest}"'


def _end_of_element(html: str, tag: str, place: int) -> int:
    """Return the end of the element whose opening tag ends at `place`."""
    depth = 1
    for found in re.compile(rf"<(/?){tag}\b[^>]*>").finditer(html, place):
        depth += -1 if found[1] else 1
        if depth == 0:
            return found.end()
    return len(html)
