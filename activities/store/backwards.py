"""The ledger read from its newest end. Reads only.

Whatever is asked, a page is a few short steps through an index: of one job by its chain; of types one step through each type's entries,
merged; of everything by time. So "newest" is by when it happened, then by position; of one job it is its chain's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, literal, select, tuple_, union_all

from activities.store.audit import FIELDS, EntryFilter, view
from activities.store.paging import MOST
from activities.store.tables import LEDGER
from justenough.ledger import Entry, moment_text
from justenough.views import EntryView, Page

_ORDER = (LEDGER.c.at.desc(), LEDGER.c.position.desc())
_PLACE = select(LEDGER.c.at, LEDGER.c.position, LEDGER.c.job, LEDGER.c.seq)


class Place(NamedTuple):
    """Where an entry stands."""

    at: str
    position: int
    job: str
    seq: int


def entries_back(connection: Connection, which: EntryFilter, *, before: int | None, limit: int) -> Page[EntryView]:
    """Return entries before the one at a position, newest first; `next` is the last one's position where more follow.

    A position that the ledger has not reached is before nothing.
    """
    size = min(max(limit, 1), MOST)
    if before is not None and before < 1:
        return Page(items=())
    place = _place(connection, before)
    if which.job is not None:
        rows = connection.execute(_of_job(which, which.job, place).limit(size + 1)).all()
    else:
        # In two steps: a planner might rather read the whole ledger than join it to a few positions.
        places = connection.execute(_merged(which, place, size + 1)).scalars().all()
        rows = connection.execute(_whole().where(LEDGER.c.position.in_(places)).order_by(*_ORDER)).all()
    items = tuple(view((row[0], Entry(*row[1:]))) for row in rows[:size])
    return Page(items=items, next=str(items[-1].position) if len(rows) > size else None)


def _place(connection: Connection, position: int | None) -> Place | None:
    row = connection.execute(_PLACE.where(LEDGER.c.position == position)).first() if position is not None else None
    return Place(*row) if row else None


def _of_job(which: EntryFilter, job: str, place: Place | None) -> Select[Any]:
    wanted = _whole().where(LEDGER.c.job == job, *_period(which))
    if which.types:
        wanted = wanted.where(LEDGER.c.type.in_(which.types))
    if place is not None:
        # Another job's entry has no place in this chain.
        wanted = wanted.where(LEDGER.c.seq < place.seq if place.job == job else LEDGER.c.position < place.position)
    return wanted.order_by(LEDGER.c.seq.desc())


def _merged(which: EntryFilter, place: Place | None, count: int) -> Select[Any]:
    lanes = [select(_lane(kind, which, place, count).subquery()) for kind in which.types or (None,)]
    merged = union_all(*lanes).subquery()
    return select(merged.c.position).order_by(merged.c.at.desc(), merged.c.position.desc()).limit(count)


def _lane(kind: str | None, which: EntryFilter, place: Place | None, count: int) -> Select[Any]:
    wanted = select(LEDGER.c.at, LEDGER.c.position).where(*_period(which))
    if kind is not None:
        wanted = wanted.where(LEDGER.c.type == kind)
    if place is not None:
        wanted = wanted.where(tuple_(LEDGER.c.at, LEDGER.c.position) < tuple_(literal(place.at), literal(place.position)))
    return wanted.order_by(*_ORDER).limit(count)


def _period(which: EntryFilter) -> Iterator[ColumnElement[bool]]:
    if which.since is not None:
        yield LEDGER.c.at >= moment_text(which.since)
    if which.until is not None:
        yield LEDGER.c.at < moment_text(which.until)


def _whole() -> Select[Any]:
    columns: Sequence[ColumnElement[Any]] = (LEDGER.c.position, *FIELDS)
    return select(*columns)
