"""Searches for texts in every place where an installation stores or shows data. Does not know how they got there."""

from __future__ import annotations

import base64
import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

import httpx

from tests.attacks.intruder import Intruder
from tests.support.people import Human
from worker.stack.stack_file import Stack

VAULT_TOKEN = re.compile(rb"(?<![A-Za-z0-9_.])(?:s\.|hvs\.)[A-Za-z0-9]{24,}(?![A-Za-z0-9_.])")
IDENTITY_TOKEN = re.compile(rb"eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}")
ZEROS = bytes(4096)
"""A page that databases reserve and do not use yet."""

Place = tuple[str, bytes]
"""A place and its content."""


@dataclass(frozen=True)
class ScanResult:
    """The result of a scan: (text, place) pairs, and the places of possible bearer tokens."""

    found: frozenset[tuple[str, str]]
    tokens: frozenset[tuple[bytes, str]]
    places: frozenset[str] = field(repr=False)

    def places_of(self, name: str) -> frozenset[str]:
        """Return the places of a text."""
        return frozenset(place for found, place in self.found if found == name)

    @property
    def names(self) -> frozenset[str]:
        """Return the texts that were found."""
        return frozenset(name for name, _ in self.found)


def scan(places: Iterable[Place], texts: Mapping[str, str]) -> ScanResult:
    """Search for each text, in plain form and in common encodings."""
    forms = [(name, form) for name, text in texts.items() for form in forms_of(text)]
    found, tokens, seen = set(), set(), set()
    for place, content in places:
        seen.add(place)
        found |= {(name, place) for name, form in forms if form in content}
        tokens |= {(match[0], place) for pattern in (VAULT_TOKEN, IDENTITY_TOKEN) for match in pattern.finditer(content)}
    return ScanResult(frozenset(found), frozenset(tokens), frozenset(seen))


def forms_of(text: str) -> set[bytes]:
    """Return a text in plain form, URL-encoded, as JSON (also inside a JSON text), in hex, and in base64 at any offset of a longer text."""
    raw, once = text.encode(), json.dumps(text)[1:-1]
    plain = {raw, quote(text, safe="").encode(), once.encode(), json.dumps(once)[1:-1].encode(), raw.hex().encode()}
    return plain | {form for shift in range(3) for form in _base64(raw, shift)}


def all_places(stack: Stack, intruder: Intruder, auditor: Human, jobs: Iterable[str], *, since: datetime | None = None) -> Iterator[Place]:
    """Yield every place with its current content; `since`: without the histories that ended before then."""
    yield from histories(intruder, since=since)
    yield from tables(stack)
    yield from files(stack)
    yield from console_responses(stack, auditor, jobs)


def histories(intruder: Intruder, *, since: datetime | None) -> Iterator[Place]:
    """Yield each workflow's history as Temporal's JSON export, and each of its events as protobuf."""
    for workflow, events in intruder.histories(since=since):
        yield f"history of {workflow}", b"\n".join(events)


def tables(stack: Stack) -> Iterator[Place]:
    """Yield each table of the store, every column of every row."""
    file = stack.database_url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=60)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            rows = connection.execute(f'SELECT * FROM "{table}"')
            yield f"table {table}", b"\n".join(_bytes(value) for row in rows for value in row)


def files(stack: Stack) -> Iterator[Place]:
    """Yield each file of the installation's home: databases, logs, audit log, unpacked bundles and so on. A page of zeros becomes one zero."""
    for path in sorted(stack.home.rglob("*")):
        if path.is_file() and not path.is_symlink():
            try:
                pages = _pages(path.read_bytes())
                yield f"file {path.relative_to(stack.home)}", b"".join(b"\0" if page == ZEROS else page for page in pages)
            except FileNotFoundError:
                continue  # A database may remove its files during the scan.


def console_responses(stack: Stack, auditor: Human, jobs: Iterable[str]) -> Iterator[Place]:
    """Yield the console's responses: each job, its log and timeline, the whole ledger, the metrics."""
    for job in jobs:
        yield "api jobs", auditor.api.get(f"jobs/{job}").raise_for_status().content
        yield "api logs", auditor.api.get(f"jobs/{job}/logs", params={"limit": 1000}).raise_for_status().content
        yield "api timeline", auditor.api.get(f"jobs/{job}/timeline", params={"limit": 1000}).raise_for_status().content
    after: str | None = "0"
    while after is not None:
        page = auditor.api.get("ledger", params={"after": after, "limit": 1000}).raise_for_status()
        yield "api ledger", page.content
        after = page.json()["next"]
    for path in ("requests", "credentials"):
        yield f"api {path}", auditor.api.get(path, params={"limit": 1000}).raise_for_status().content
    for path in ("metrics", "readyz", "openapi.json"):
        yield path, httpx.get(f"{stack.console}/{path}", trust_env=False).content


def _pages(content: bytes) -> Iterator[bytes]:
    return (content[start : start + len(ZEROS)] for start in range(0, len(content), len(ZEROS)))


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def _base64(raw: bytes, shift: int) -> Iterator[bytes]:
    """Yield the base64 of these bytes at offset `shift` from a boundary, without the first and last letters, which depend on the neighbours."""
    encoded = base64.b64encode(b"\0" * shift + raw)
    first = (8 * shift + 5) // 6
    sure = encoded[first : (8 * (shift + len(raw))) // 6]
    yield sure
    yield sure.replace(b"+", b"-").replace(b"/", b"_")
