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

from justenough.adapters.store.ledger_writer import NumberedEntry
from justenough.adapters.store.paging import MAX_PAGE_SIZE
from justenough.adapters.store.projection import parse_moment
from justenough.adapters.store.tables import HEADS, JOBS, LEDGER
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN
from justenough.domain.ledger.hash_chain import (
    ChainHead,
    ChainProblem,
    Fault,
    LedgerEntry,
    LedgerReport,
    chain_ends,
    compare_with_heads,
    moment_text,
)
from justenough.domain.readmodel.views import EntryView, Page

StoredEntry = tuple[int, str, str, str, str, str]
"""Position, job, id, type, at and data, as stored."""


ENTRY_COLUMNS = tuple(LEDGER.c[name] for name in LedgerEntry._fields)


ROWS_PER_FETCH = 5_000


ROWS_BETWEEN_PAUSES = 50


MAX_TAIL_BYTES = 1024 * 1024
"""Text in one tail, about: an order may be as large as this by itself."""


MAX_NARROW_ENTRIES = 20_000
"""Entries that are put into order by themselves, at most."""


MAX_PROBLEMS = 1_000
"""A ledger that was exchanged whole would fill the memory with problems otherwise."""


class EntryFilter(NamedTuple):
    """Which entries are wanted; None and empty for whatever."""

    job: str | None = None
    types: tuple[str, ...] = ()
    since: datetime | None = None
    """When they happened, at the earliest."""
    until: datetime | None = None
    """Before when they happened."""


class LedgerTail(NamedTuple):
    """Entries after a position, in order."""

    entries: tuple[EntryView, ...]
    sizes: tuple[int, ...]
    """How much text each one's data are."""
    more: bool
    """Whether others follow."""


class LedgerSpan(NamedTuple):
    """Positions between which every entry of a period is; entries of other times may be among them."""

    first: int
    last: int

    @property
    def width(self) -> int:
        """How many entries that are at most."""
        return self.last - self.first + 1


def entries(connection: Connection, criteria: EntryFilter, *, after: int, limit: int) -> Page[EntryView]:
    """Return entries after a position, oldest first; `next` is the last one's position where more follow."""
    size, job = min(max(limit, 1), MAX_PAGE_SIZE), criteria.job
    wanted = select(LEDGER.c.position, *ENTRY_COLUMNS).where(LEDGER.c.position > after).order_by(LEDGER.c.position).limit(size + 1)
    if criteria.types:
        wanted = wanted.where(LEDGER.c.type.in_(criteria.types))
    # Each is text of the same form and length, so that texts compare as their moments do.
    if criteria.since is not None:
        wanted = wanted.where(LEDGER.c.at >= moment_text(criteria.since))
    if criteria.until is not None:
        wanted = wanted.where(LEDGER.c.at < moment_text(criteria.until))
    if job is None and _is_narrow(connection, criteria):
        # By time first, and behind an offset: a planner might walk the whole ledger by position to the period's first entry.
        places = wanted.with_only_columns(LEDGER.c.position).order_by(None).limit(None).offset(0).subquery()
        first = connection.execute(select(places.c.position).order_by(places.c.position).limit(size + 1)).scalars().all()
        wanted = select(LEDGER.c.position, *ENTRY_COLUMNS).where(LEDGER.c.position.in_(first)).order_by(LEDGER.c.position)
    if job is not None:
        # By seq, which ascends with the position, the chain's own index gives the order.
        wanted = wanted.where(LEDGER.c.job == job).order_by(None).order_by(LEDGER.c.seq)
    rows = connection.execute(wanted).all()
    items = tuple(to_entry_view((row[0], LedgerEntry(*row[1:]))) for row in rows[:size])
    return Page(items=items, next=str(items[-1].position) if len(rows) > size else None)


def _is_narrow(connection: Connection, criteria: EntryFilter) -> bool:
    """Whether a period has few entries. Of a wide one most entries are, so that they are soon found by position."""
    if criteria.since is None and criteria.until is None:
        return False
    period = select(LEDGER.c.position)
    period = period if criteria.since is None else period.where(LEDGER.c.at >= moment_text(criteria.since))
    period = period if criteria.until is None else period.where(LEDGER.c.at < moment_text(criteria.until))
    return (
        connection.execute(select(func.count()).select_from(period.limit(MAX_NARROW_ENTRIES + 1).subquery())).scalar_one()
        <= MAX_NARROW_ENTRIES
    )


def tail(connection: Connection, *, after: int, job: str | None, limit: int) -> LedgerTail:
    """Return entries after a position, as many as fit into TAIL_BYTES, and one at least."""
    place = (LEDGER.c.position > after) if job is None else (LEDGER.c.position > after) & (LEDGER.c.job == job)
    order = LEDGER.c.position if job is None else LEDGER.c.seq
    wanted = select(LEDGER.c.position, func.length(LEDGER.c.data)).where(place).order_by(order).limit(limit + 1)
    rows = connection.execute(wanted).all()
    sums = list(accumulate(size for _, size in rows))
    fit = max(1, min(limit, bisect_right(sums, MAX_TAIL_BYTES)))
    if not rows:
        return LedgerTail((), (), more=False)
    whole = select(LEDGER.c.position, *ENTRY_COLUMNS).where(place, LEDGER.c.position <= rows[:fit][-1][0]).order_by(order)
    found = tuple(to_entry_view((row[0], LedgerEntry(*row[1:]))) for row in connection.execute(whole))
    return LedgerTail(found, tuple(size for _, size in rows[:fit]), more=len(rows) > fit)


def span(connection: Connection, since: datetime, until: datetime) -> LedgerSpan | None:
    """Return between which positions the entries from `since` to before `until` are; None where there are none."""
    first, last = connection.execute(span_statement(since, until)).one()
    return None if first is None else LedgerSpan(first, last)


def span_statement(since: datetime, until: datetime) -> Select[Any]:
    """Return the statement for the first and last position of a period."""
    theirs = (LEDGER.c.at >= moment_text(since)) & (LEDGER.c.at < moment_text(until))
    # Behind an offset, so that no planner walks the whole ledger by position to find the first one: the index by time has both.
    found = select(LEDGER.c.position).where(theirs).offset(0).subquery()
    return select(func.min(found.c.position), func.max(found.c.position))


def stored_entries(connection: Connection, types: Sequence[str], *, after: int, last: int, limit: int) -> Sequence[StoredEntry]:
    """Return what is stored of entries of these types after a position and up to another, in order."""
    columns = (LEDGER.c.position, LEDGER.c.job, LEDGER.c.id, LEDGER.c.type, LEDGER.c.at, LEDGER.c.data)
    wanted = select(*columns).where(LEDGER.c.position > after, LEDGER.c.position <= last, LEDGER.c.type.in_(types))
    # Rows are tuples; making others of them would cost as much as reading them.
    return connection.execute(wanted.order_by(LEDGER.c.position).limit(limit)).all()


def existing_ids(connection: Connection, ids: Collection[str]) -> frozenset[str]:
    """Return those of these entry ids that are in the ledger."""
    return frozenset(connection.execute(select(LEDGER.c.id).where(LEDGER.c.id.in_(ids))).scalars())


def to_entry_view(numbered: NumberedEntry) -> EntryView:
    """Return an entry as it is shown."""
    position, entry = numbered
    return EntryView(position=position, **{**entry._asdict(), "at": parse_moment(entry.at), "data": json.loads(entry.data)})


def verify(connection: Connection) -> LedgerReport:
    """Look at every chain, one entry at a time. The connection must see one moment throughout."""
    problems: list[ChainProblem] = []
    jobs = 0
    for item in compare_with_heads(chain_ends(_stream_entries(connection)), _stream_heads(connection)):
        if isinstance(item, ChainHead):
            jobs += 1
        elif len(problems) < MAX_PROBLEMS:
            problems.append(item)
    count, newest = connection.execute(select(func.count(), func.coalesce(func.max(LEDGER.c.position), 0)).select_from(LEDGER)).one()
    if newest != count and len(problems) < MAX_PROBLEMS:
        problems.append(_positions_missing(newest - count))
    return LedgerReport(entries=count, jobs=jobs, problems=tuple(problems))


def _stream_entries(connection: Connection) -> Iterator[LedgerEntry]:
    # A row has an entry's fields in their order; making an Entry of each would cost as much as hashing it.
    # The position tells two entries in one place apart: the later one is the one too many.
    for number, row in enumerate(_stream_rows(connection, select(*ENTRY_COLUMNS).order_by(LEDGER.c.job, LEDGER.c.seq, LEDGER.c.position))):
        if not number % ROWS_BETWEEN_PAUSES:
            # Hashing holds the interpreter's lock; others of this process answer people meanwhile, and go first.
            time.sleep(0)
        yield row  # type: ignore[misc]


def _stream_heads(connection: Connection) -> Iterator[ChainHead]:
    for row in _stream_rows(connection, select(HEADS.c.job, HEADS.c.seq, HEADS.c.hash).order_by(HEADS.c.job)):
        yield ChainHead(row.job, row.seq, row.hash)


def _stream_rows(connection: Connection, statement: Select[Any]) -> Iterator[Row[Any]]:
    with connection.execute(statement, execution_options={"yield_per": ROWS_PER_FETCH}) as result:
        yield from result


def _positions_missing(count: int) -> ChainProblem:
    what = f"{count} positions are empty: whole chains were removed" if count > 0 else f"{-count} entries have no place of their own"
    return ChainProblem(job=UNATTRIBUTED_CHAIN, seq=0, fault=Fault.MISSING, message=what)


_NEWEST_FIRST = (LEDGER.c.at.desc(), LEDGER.c.position.desc())


_POSITION = select(LEDGER.c.at, LEDGER.c.position, LEDGER.c.job, LEDGER.c.seq)


class LedgerPlace(NamedTuple):
    """Where an entry stands."""

    at: str
    position: int
    job: str
    seq: int


def entries_newest_first(connection: Connection, criteria: EntryFilter, *, before: int | None, limit: int) -> Page[EntryView]:
    """Return entries before the one at a position, newest first; `next` is the last one's position where more follow.

    A position that the ledger has not reached is before nothing.
    """
    size = min(max(limit, 1), MAX_PAGE_SIZE)
    if before is not None and before < 1:
        return Page(items=())
    place = _place_of(connection, before)
    if criteria.job is not None:
        rows = connection.execute(_job_statement(criteria, criteria.job, place).limit(size + 1)).all()
    else:
        # In two steps: a planner might rather read the whole ledger than join it to a few positions.
        places = connection.execute(_newest_positions_statement(criteria, place, size + 1)).scalars().all()
        rows = connection.execute(_entry_statement().where(LEDGER.c.position.in_(places)).order_by(*_NEWEST_FIRST)).all()
    items = tuple(to_entry_view((row[0], LedgerEntry(*row[1:]))) for row in rows[:size])
    return Page(items=items, next=str(items[-1].position) if len(rows) > size else None)


def _place_of(connection: Connection, position: int | None) -> LedgerPlace | None:
    row = connection.execute(_POSITION.where(LEDGER.c.position == position)).first() if position is not None else None
    return LedgerPlace(*row) if row else None


def _job_statement(criteria: EntryFilter, job: str, place: LedgerPlace | None) -> Select[Any]:
    wanted = _entry_statement().where(LEDGER.c.job == job, *_period_conditions(criteria))
    if criteria.types:
        wanted = wanted.where(LEDGER.c.type.in_(criteria.types))
    if place is not None:
        # Another job's entry has no place in this chain.
        wanted = wanted.where(LEDGER.c.seq < place.seq if place.job == job else LEDGER.c.position < place.position)
    return wanted.order_by(LEDGER.c.seq.desc())


def _newest_positions_statement(criteria: EntryFilter, place: LedgerPlace | None, count: int) -> Select[Any]:
    lanes = [select(_positions_of_type_statement(kind, criteria, place, count).subquery()) for kind in criteria.types or (None,)]
    merged = union_all(*lanes).subquery()
    return select(merged.c.position).order_by(merged.c.at.desc(), merged.c.position.desc()).limit(count)


def _positions_of_type_statement(kind: str | None, criteria: EntryFilter, place: LedgerPlace | None, count: int) -> Select[Any]:
    wanted = select(LEDGER.c.at, LEDGER.c.position).where(*_period_conditions(criteria))
    if kind is not None:
        wanted = wanted.where(LEDGER.c.type == kind)
    if place is not None:
        wanted = wanted.where(tuple_(LEDGER.c.at, LEDGER.c.position) < tuple_(literal(place.at), literal(place.position)))
    return wanted.order_by(*_NEWEST_FIRST).limit(count)


def _period_conditions(criteria: EntryFilter) -> Iterator[ColumnElement[bool]]:
    if criteria.since is not None:
        yield LEDGER.c.at >= moment_text(criteria.since)
    if criteria.until is not None:
        yield LEDGER.c.at < moment_text(criteria.until)


def _entry_statement() -> Select[Any]:
    columns: Sequence[ColumnElement[Any]] = (LEDGER.c.position, *ENTRY_COLUMNS)
    return select(*columns)


MAX_ENTRIES_PER_TYPE = 200
"""Entries of one type that a story holds at most."""


class JobCaption(NamedTuple):
    """What lists say of a job beside its id."""

    name: str
    requester: str
    """Login name."""
    requester_id: str


def entry(connection: Connection, name: str) -> EntryView | None:
    """Return an entry by its id."""
    # NUL is in no row, and PostgreSQL refuses to look for it.
    wanted = select(LEDGER.c.position, *ENTRY_COLUMNS).where(LEDGER.c.id == name.replace("\0", "\ufffd"))
    row = connection.execute(wanted).first()
    return to_entry_view((row[0], LedgerEntry(*row[1:]))) if row else None


def entries_about(connection: Connection, job: str, types: Iterable[str], about: str) -> tuple[EntryView, ...]:
    """Return a job's entries of these types about one thing, in their order; of very many, the first ones of each type."""
    rows: list[Any] = []
    for kind in types:
        # A range of ids, for which there is an index: the thing's own, and that one with `/` and more. `0` follows `/`.
        own = f"{job}/{kind}/{about}"
        theirs = or_(LEDGER.c.id == own, (LEDGER.c.id >= f"{own}/") & (LEDGER.c.id < f"{own}0"))
        rows += connection.execute(select(LEDGER.c.position, *ENTRY_COLUMNS).where(theirs).limit(MAX_ENTRIES_PER_TYPE)).all()
    return tuple(to_entry_view((row[0], LedgerEntry(*row[1:]))) for row in sorted(rows, key=lambda row: row.seq))


def job_captions(connection: Connection, jobs: Collection[str]) -> Mapping[str, JobCaption]:
    """Return name and requester of these jobs by id; of those that there are."""
    if not jobs:
        return {}
    wanted = select(JOBS.c.id, JOBS.c.name, JOBS.c.requester, JOBS.c.requester_id).where(JOBS.c.id.in_(jobs))
    return {row[0]: JobCaption(*row[1:]) for row in connection.execute(wanted)}
