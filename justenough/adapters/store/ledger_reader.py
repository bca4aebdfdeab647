"""The ledger as it is read: entries in order, and the look at every chain. Reads only; the arithmetic is justenough/domain/ledger/hash_chain.py's."""

from __future__ import annotations

import json
import time
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, Select, func, literal, or_, select, tuple_, union_all

from justenough.adapters.store.ledger_writer import Numbered
from justenough.adapters.store.paging import MOST
from justenough.adapters.store.projection import moment
from justenough.adapters.store.tables import HEADS, JOBS, LEDGER
from justenough.domain.ledger.events import UNATTRIBUTED
from justenough.domain.ledger.hash_chain import ChainProblem, Entry, Fault, Head, LedgerReport, chain_ends, compared, moment_text
from justenough.domain.readmodel.views import EntryView, Page

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


MAX_ENTRIES = 200
"""Entries of one type that a story holds at most."""


class Whose(NamedTuple):
    """What lists say of a job beside its id."""

    name: str
    requester: str
    """Login name."""
    requester_id: str


def entry(connection: Connection, name: str) -> EntryView | None:
    """Return an entry by its id."""
    # NUL is in no row, and PostgreSQL refuses to look for it.
    wanted = select(LEDGER.c.position, *FIELDS).where(LEDGER.c.id == name.replace("\0", "\ufffd"))
    row = connection.execute(wanted).first()
    return view((row[0], Entry(*row[1:]))) if row else None


def story(connection: Connection, job: str, types: Iterable[str], about: str) -> tuple[EntryView, ...]:
    """Return a job's entries of these types about one thing, in their order; of very many, the first ones of each type."""
    rows: list[Any] = []
    for kind in types:
        # A range of ids, for which there is an index: the thing's own, and that one with `/` and more. `0` follows `/`.
        own = f"{job}/{kind}/{about}"
        theirs = or_(LEDGER.c.id == own, (LEDGER.c.id >= f"{own}/") & (LEDGER.c.id < f"{own}0"))
        rows += connection.execute(select(LEDGER.c.position, *FIELDS).where(theirs).limit(MAX_ENTRIES)).all()
    return tuple(view((row[0], Entry(*row[1:]))) for row in sorted(rows, key=lambda row: row.seq))


def whose(connection: Connection, jobs: Collection[str]) -> Mapping[str, Whose]:
    """Return name and requester of these jobs by id; of those that there are."""
    if not jobs:
        return {}
    wanted = select(JOBS.c.id, JOBS.c.name, JOBS.c.requester, JOBS.c.requester_id).where(JOBS.c.id.in_(jobs))
    return {row[0]: Whose(*row[1:]) for row in connection.execute(wanted)}
