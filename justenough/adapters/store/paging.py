"""Keyset pages: a cursor names the last row of a page, so that rows added meanwhile cause no row to be repeated or skipped. Knows no query."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Select, tuple_

from justenough.adapters.store.tables import UtcDateTime
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.readmodel.views import Page

T = TypeVar("T")

MAX_PAGE_SIZE = 1000
"""Rows in one page."""
ROWS_PER_FETCH = 5_000
"""Rows that a walk through a whole table reads at once."""


def fetch_page(
    connection: Connection,
    statement: Select[Any],
    *,
    by: Sequence[Column[Any]],
    limit: int,
    cursor: str | None,
    view: Callable[..., T],
    is_ascending: bool = False,
) -> Page[T]:
    """Return one page of views, in the order of the columns `by`, which together are unique. Raises InvalidInput if the cursor is not from this list."""
    if cursor is not None:
        statement = statement.where(comes_after(by, _decode_cursor(cursor, by), is_ascending=is_ascending))
    size = min(max(limit, 1), MAX_PAGE_SIZE)
    order = [column.asc() if is_ascending else column.desc() for column in by]
    rows = connection.execute(statement.order_by(*order).limit(size + 1)).mappings().all()
    last_key = [rows[size - 1][column.name] for column in by] if len(rows) > size else None
    return Page(items=tuple(view(**row) for row in rows[:size]), next=_encode_cursor(last_key) if last_key else None)


def comes_after(by: Sequence[Column[Any]], key: Sequence[Any], *, is_ascending: bool = True) -> ColumnElement[bool]:
    """Return the condition that a row comes after the one with this key, in the order of the columns `by`."""
    # A planner may not use an index for a tuple of one column.
    row, last = (tuple_(*by), tuple_(*key, types=[column.type for column in by])) if len(by) > 1 else (by[0], key[0])
    return row > last if is_ascending else row < last


def merge_pages(pages: Sequence[Page[T]], *, by: Callable[[T], tuple[Any, ...]], limit: int, is_ascending: bool = False) -> Page[T]:
    """Merge the pages of several lists, each in the same order of the same key, into one page. Its cursor is a cursor of each list."""
    items = sorted((item for page in pages for item in page.items), key=by, reverse=not is_ascending)
    size = min(max(limit, 1), MAX_PAGE_SIZE)
    has_more = len(items) > size or any(page.next for page in pages)
    return Page(items=tuple(items[:size]), next=_encode_cursor(by(items[:size][-1])) if has_more else None)


def iterate_pages(fetch: Callable[[str | None], Page[T]]) -> Iterator[T]:
    """Yield the items of every page. `fetch` gets a page's cursor; None for the first page."""
    page = fetch(None)
    yield from page.items
    while page.next is not None:
        page = fetch(page.next)
        yield from page.items


def _encode_cursor(key: Sequence[Any]) -> str:
    text = json.dumps([part.isoformat() if isinstance(part, datetime) else part for part in key])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _decode_cursor(cursor: str, by: Sequence[Column[Any]]) -> list[Any]:
    try:
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not isinstance(parts, list) or [type(part) for part in parts] != [str] * len(by):
            raise ValueError(cursor)
        key = [
            datetime.fromisoformat(part) if isinstance(column.type, UtcDateTime) else part for part, column in zip(parts, by, strict=True)
        ]
        # JSON can contain half a surrogate pair, which cannot be encoded; PostgreSQL rejects NUL in text.
        if b"\0" in "".join(parts).encode() or any(isinstance(part, datetime) and part.tzinfo is None for part in key):
            raise ValueError(cursor)
        return [part.astimezone(UTC) if isinstance(part, datetime) else part for part in key]
    except (ValueError, OverflowError, RecursionError) as error:
        raise InvalidInput("cursor", (Problem("cursor", "not a cursor from this list; start again without one"),)) from error
