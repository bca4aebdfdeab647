"""The ledger as it is read: entries in order, and the look at every chain. Reads only; the arithmetic is justenough/ledger.py's."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, func, select

from activities.store.paging import MOST
from activities.store.projection import moment
from activities.store.tables import HEADS, LEDGER
from activities.store.writer import Numbered
from justenough.events import UNATTRIBUTED
from justenough.ledger import ChainProblem, Entry, Fault, Head, LedgerReport, chain_ends, compared, moment_text
from justenough.views import EntryView, Page

Stored = tuple[int, str, str, str, str, str]
"""Position, job, id, type, at and data, as stored."""

FIELDS = tuple(LEDGER.c[name] for name in Entry._fields)
ROWS_AT_ONCE = 5_000
PAUSED_EVERY = 50
TAIL_BYTES = 1024 * 1024
"""Text in one tail, about: an order may be as large as this by itself."""
NARROW = 20_000
"""Entries that are put into order by themselves, at most."""
MOST_PROBLEMS = 1_000
"""A ledger that was exchanged whole would fill the memory with problems otherwise."""


class EntryFilter(NamedTuple):
    """Which entries are wanted; None and empty for whatever."""

    job: str | None = None
    types: tuple[str, ...] = ()
    since: datetime | None = None
    """When they happened, at the earliest."""
    until: datetime | None = None
    """Before when they happened."""


class Tail(NamedTuple):
    """Entries after a position, in order."""

    entries: tuple[EntryView, ...]
    sizes: tuple[int, ...]
    """How much text each one's data are."""
    more: bool
    """Whether others follow."""


class Span(NamedTuple):
    """Positions between which every entry of a period is; entries of other times may be among them."""

    first: int
    last: int

    @property
    def width(self) -> int:
        """How many entries that are at most."""
        return self.last - self.first + 1


def entries(connection: Connection, which: EntryFilter, *, after: int, limit: int) -> Page[EntryView]:
    """Return entries after a position, oldest first; `next` is the last one's position where more follow."""
    size, job = min(max(limit, 1), MOST), which.job
    wanted = select(LEDGER.c.position, *FIELDS).where(LEDGER.c.position > after).order_by(LEDGER.c.position).limit(size + 1)
    if which.types:
        wanted = wanted.where(LEDGER.c.type.in_(which.types))
    # Each is text of the same form and length, so that texts compare as their moments do.
    if which.since is not None:
        wanted = wanted.where(LEDGER.c.at >= moment_text(which.since))
    if which.until is not None:
        wanted = wanted.where(LEDGER.c.at < moment_text(which.until))
    if job is None and _is_narrow(connection, which):
        # By time first, and behind an offset: a planner might walk the whole ledger by position to the period's first entry.
        places = wanted.with_only_columns(LEDGER.c.position).order_by(None).limit(None).offset(0).subquery()
        first = connection.execute(select(places.c.position).order_by(places.c.position).limit(size + 1)).scalars().all()
        wanted = select(LEDGER.c.position, *FIELDS).where(LEDGER.c.position.in_(first)).order_by(LEDGER.c.position)
    if job is not None:
        # By seq, which ascends with the position, the chain's own index gives the order.
        wanted = wanted.where(LEDGER.c.job == job).order_by(None).order_by(LEDGER.c.seq)
    rows = connection.execute(wanted).all()
    items = tuple(view((row[0], Entry(*row[1:]))) for row in rows[:size])
    return Page(items=items, next=str(items[-1].position) if len(rows) > size else None)


def _is_narrow(connection: Connection, which: EntryFilter) -> bool:
    """Whether a period has few entries. Of a wide one most entries are, so that they are soon found by position."""
    if which.since is None and which.until is None:
        return False
    period = select(LEDGER.c.position)
    period = period if which.since is None else period.where(LEDGER.c.at >= moment_text(which.since))
    period = period if which.until is None else period.where(LEDGER.c.at < moment_text(which.until))
    return connection.execute(select(func.count()).select_from(period.limit(NARROW + 1).subquery())).scalar_one() <= NARROW


def tail(connection: Connection, *, after: int, job: str | None, limit: int) -> Tail:
    """Return entries after a position, as many as fit into TAIL_BYTES, and one at least."""
    place = (LEDGER.c.position > after) if job is None else (LEDGER.c.position > after) & (LEDGER.c.job == job)
    order = LEDGER.c.position if job is None else LEDGER.c.seq
    wanted = select(LEDGER.c.position, func.length(LEDGER.c.data)).where(place).order_by(order).limit(limit + 1)
    rows = connection.execute(wanted).all()
    sums = list(accumulate(size for _, size in rows))
    fit = max(1, min(limit, bisect_right(sums, TAIL_BYTES)))
    if not rows:
        return Tail((), (), more=False)
    whole = select(LEDGER.c.position, *FIELDS).where(place, LEDGER.c.position <= rows[:fit][-1][0]).order_by(order)
    found = tuple(view((row[0], Entry(*row[1:]))) for row in connection.execute(whole))
    return Tail(found, tuple(size for _, size in rows[:fit]), more=len(rows) > fit)


def span(connection: Connection, since: datetime, until: datetime) -> Span | None:
    """Return between which positions the entries from `since` to before `until` are; None where there are none."""
    first, last = connection.execute(spanning(since, until)).one()
    return None if first is None else Span(first, last)


def spanning(since: datetime, until: datetime) -> Select[Any]:
    """Return the statement for the first and last position of a period."""
    theirs = (LEDGER.c.at >= moment_text(since)) & (LEDGER.c.at < moment_text(until))
    # Behind an offset, so that no planner walks the whole ledger by position to find the first one: the index by time has both.
    found = select(LEDGER.c.position).where(theirs).offset(0).subquery()
    return select(func.min(found.c.position), func.max(found.c.position))


def facts(connection: Connection, types: Sequence[str], *, after: int, last: int, limit: int) -> Sequence[Stored]:
    """Return what is stored of entries of these types after a position and up to another, in order."""
    columns = (LEDGER.c.position, LEDGER.c.job, LEDGER.c.id, LEDGER.c.type, LEDGER.c.at, LEDGER.c.data)
    wanted = select(*columns).where(LEDGER.c.position > after, LEDGER.c.position <= last, LEDGER.c.type.in_(types))
    # Rows are tuples; making others of them would cost as much as reading them.
    return connection.execute(wanted.order_by(LEDGER.c.position).limit(limit)).all()


def recorded(connection: Connection, ids: Collection[str]) -> frozenset[str]:
    """Return those of these entry ids that are in the ledger."""
    return frozenset(connection.execute(select(LEDGER.c.id).where(LEDGER.c.id.in_(ids))).scalars())


def view(numbered: Numbered) -> EntryView:
    """Return an entry as it is shown."""
    position, entry = numbered
    return EntryView(position=position, **{**entry._asdict(), "at": moment(entry.at), "data": json.loads(entry.data)})


def verify(connection: Connection) -> LedgerReport:
    """Look at every chain, one entry at a time. The connection must see one moment throughout."""
    problems: list[ChainProblem] = []
    jobs = 0
    for item in compared(chain_ends(_entries(connection)), _heads(connection)):
        if isinstance(item, Head):
            jobs += 1
        elif len(problems) < MOST_PROBLEMS:
            problems.append(item)
    count, newest = connection.execute(select(func.count(), func.coalesce(func.max(LEDGER.c.position), 0)).select_from(LEDGER)).one()
    if newest != count and len(problems) < MOST_PROBLEMS:
        problems.append(_positions_missing(newest - count))
    return LedgerReport(entries=count, jobs=jobs, problems=tuple(problems))


def _entries(connection: Connection) -> Iterator[Entry]:
    # A row has an entry's fields in their order; making an Entry of each would cost as much as hashing it.
    # The position tells two entries in one place apart: the later one is the one too many.
    for number, row in enumerate(_streamed(connection, select(*FIELDS).order_by(LEDGER.c.job, LEDGER.c.seq, LEDGER.c.position))):
        if not number % PAUSED_EVERY:
            # Hashing holds the interpreter's lock; others of this process answer people meanwhile, and go first.
            time.sleep(0)
        yield row  # type: ignore[misc]


def _heads(connection: Connection) -> Iterator[Head]:
    for row in _streamed(connection, select(HEADS.c.job, HEADS.c.seq, HEADS.c.hash).order_by(HEADS.c.job)):
        yield Head(row.job, row.seq, row.hash)


def _streamed(connection: Connection, wanted: Select[Any]) -> Iterator[Row[Any]]:
    with connection.execute(wanted, execution_options={"yield_per": ROWS_AT_ONCE}) as result:
        yield from result


def _positions_missing(count: int) -> ChainProblem:
    what = f"{count} positions are empty: whole chains were removed" if count > 0 else f"{-count} entries have no place of their own"
    return ChainProblem(job=UNATTRIBUTED, seq=0, fault=Fault.MISSING, message=what)
