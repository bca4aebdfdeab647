"""The ledger: append events, read entries in order, verify every chain. The arithmetic is in justenough/domain/ledger/hash_chain.py."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import accumulate
from typing import Any, NamedTuple

from pydantic_core import from_json
from sqlalchemy import ColumnElement, Connection, Row, Select, func, literal, or_, select, tuple_, union_all

from justenough.adapters.store import ledger_writer
from justenough.adapters.store.paging import MAX_PAGE_SIZE, ROWS_PER_FETCH
from justenough.adapters.store.repository import (
    DEFAULT_PAGE_SIZE,
    Repository,
    has_type,
    newest_position,
    reads,
    reads_snapshot,
    without_nul,
)
from justenough.adapters.store.tables import HEADS, LEDGER
from justenough.domain.core.base_model import Message
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, Event, EventType, parse_entry_time
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
from justenough.domain.ledger.merkle import leaf_of
from justenough.domain.readmodel.views import EntryView, Page

StoredEntry = tuple[int, str, str, str, str, str]
"""Position, job, id, type, at and data, as stored."""

ENTRY_COLUMNS = tuple(LEDGER.c[name] for name in LedgerEntry._fields)
ROWS_BETWEEN_PAUSES = 50
MAX_TAIL_BYTES = 1024 * 1024
"""Approximate size of one tail. A single order may be this large."""
MAX_NARROW_ENTRIES = 20_000
"""Maximum number of entries in a period for which the query itself sorts them."""
MAX_PROBLEMS = 1_000
"""Maximum number of problems in one report. A ledger that was replaced entirely has a problem in every entry."""
RECENT_ENTRIES = 5_000
"""The newest checkpoint is usually among this many newest entries: there is one for every 1,000."""
MAX_NEWS_SPAN = 5_000
"""Maximum number of positions that one read of news covers."""
MAX_ENTRIES_PER_TYPE = 200
"""Maximum number of entries of one type about one thing."""

_NUMBERED = (LEDGER.c.position, *ENTRY_COLUMNS)
_NEWEST_FIRST = (LEDGER.c.at.desc(), LEDGER.c.position.desc())
_PLACE = select(LEDGER.c.at, LEDGER.c.position, LEDGER.c.job, LEDGER.c.seq)


class LedgerTail(NamedTuple):
    """Entries after a position, in order, and whether more follow."""

    entries: tuple[EntryView, ...]
    sizes: tuple[int, ...]
    """Length of each entry's data, in characters."""
    more: bool
    hash_before: str | None = None
    """The hash of the entry at that position; None if there is none."""


class LedgerSpan(NamedTuple):
    """The first and last position of a period's entries. Entries of other times may lie in between."""

    first: int
    last: int

    @property
    def width(self) -> int:
        """The number of positions: an upper limit for the number of entries."""
        return self.last - self.first + 1


class LedgerHead(Message):
    """The ledger's newest entry, and its newest signed checkpoint, which may commit to fewer entries."""

    entries: int
    position: int
    hash: str | None
    """None if the ledger is empty."""
    checkpoint: str | None = None
    """The text of the newest checkpoint; None if there is none yet."""


class LedgerRepository(Repository):
    @reads_snapshot
    def entries(
        self,
        connection: Connection,
        *,
        job: str | None = None,
        types: Iterable[EventType] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        after: int = 0,
        limit: int = DEFAULT_PAGE_SIZE,
    ) -> Page[EntryView]:
        """Return entries after a position, oldest first. `next` is the position of the last one, as text, if more follow."""
        size, period, kinds = min(max(limit, 1), MAX_PAGE_SIZE), _period_conditions(since, until), [kind.value for kind in types]
        statement = select(*_NUMBERED).where(LEDGER.c.position > after, *period).order_by(LEDGER.c.position).limit(size + 1)
        if kinds:
            statement = statement.where(LEDGER.c.type.in_(kinds))
        if job is not None:
            # Sort by seq, which ascends with the position: the index of the chain has that order.
            statement = statement.where(LEDGER.c.job == job).order_by(None).order_by(LEDGER.c.seq)
        elif period:
            # A long period contains most entries, so a walk by position finds enough of them soon.
            narrow = select(LEDGER.c.position).where(*period).limit(MAX_NARROW_ENTRIES + 1).subquery()
            if connection.execute(select(func.count()).select_from(narrow)).scalar_one() <= MAX_NARROW_ENTRIES:
                # Filter by time first, and behind an offset: otherwise a planner may walk the ledger by position to the period's first entry.
                places = statement.with_only_columns(LEDGER.c.position).order_by(None).limit(None).offset(0).subquery()
                first = connection.execute(select(places.c.position).order_by(places.c.position).limit(size + 1)).scalars().all()
                statement = select(*_NUMBERED).where(LEDGER.c.position.in_(first)).order_by(LEDGER.c.position)
        return _to_page(connection.execute(statement).all(), size)

    @reads_snapshot
    def entries_newest_first(
        self,
        connection: Connection,
        *,
        job: str | None = None,
        types: Iterable[EventType] = (),
        since: datetime | None = None,
        until: datetime | None = None,
        before: int | None = None,
        limit: int = DEFAULT_PAGE_SIZE,
    ) -> Page[EntryView]:
        """Return entries before the one at a position, newest first. `next` is the position of the last one, as text, if more follow.

        Sorted by the time of the event; the entries of one job by their place in its chain. A position past the ledger's end is ignored.
        """
        size, period, kinds = min(max(limit, 1), MAX_PAGE_SIZE), _period_conditions(since, until), {kind.value: None for kind in types}
        if before is not None and before < 1:
            return Page(items=())
        place = connection.execute(_PLACE.where(LEDGER.c.position == before)).first() if before is not None else None
        if job is not None:
            statement = select(*_NUMBERED).where(LEDGER.c.job == job, *period).order_by(LEDGER.c.seq.desc()).limit(size + 1)
            if kinds:
                statement = statement.where(LEDGER.c.type.in_(kinds))
            if place is not None:
                # An entry of another job has no sequence number in this chain, so compare positions.
                statement = statement.where(LEDGER.c.seq < place.seq if place.job == job else LEDGER.c.position < place.position)
        else:
            newest = select(LEDGER.c.at, LEDGER.c.position).where(*period).order_by(*_NEWEST_FIRST).limit(size + 1)
            if place is not None:
                newest = newest.where(tuple_(LEDGER.c.at, LEDGER.c.position) < tuple_(literal(place.at), literal(place.position)))
            # One subquery for each type, because the index begins with the type.
            lanes = [newest.where(LEDGER.c.type == kind) for kind in kinds] or [newest]
            merged = union_all(*(select(lane.subquery()) for lane in lanes)).subquery()
            # Query in two steps: a planner may read the whole ledger rather than join it to a few positions.
            first = select(merged.c.position).order_by(merged.c.at.desc(), merged.c.position.desc()).limit(size + 1)
            positions = connection.execute(first).scalars().all()
            statement = select(*_NUMBERED).where(LEDGER.c.position.in_(positions)).order_by(*_NEWEST_FIRST)
        return _to_page(connection.execute(statement).all(), size)

    @reads_snapshot
    def tail(self, connection: Connection, after: int, *, job: str | None = None, limit: int = DEFAULT_PAGE_SIZE) -> LedgerTail:
        """Return the entries after a position, oldest first: at most `limit`, and as many as fit into MAX_TAIL_BYTES, but at least one."""
        place = (LEDGER.c.position > after) if job is None else (LEDGER.c.position > after) & (LEDGER.c.job == job)
        order = LEDGER.c.position if job is None else LEDGER.c.seq
        sizes = select(LEDGER.c.position, func.length(LEDGER.c.data)).where(place).order_by(order).limit(limit + 1)
        rows = connection.execute(sizes).all()
        sums = list(accumulate(size for _, size in rows))
        fit = max(1, min(limit, bisect_right(sums, MAX_TAIL_BYTES)))
        hash_before = connection.execute(select(LEDGER.c.hash).where(LEDGER.c.position == after)).scalar()
        if not rows:
            return LedgerTail((), (), more=False, hash_before=hash_before)
        statement = select(*_NUMBERED).where(place, LEDGER.c.position <= rows[:fit][-1][0]).order_by(order)
        entries = tuple(map(row_to_view, connection.execute(statement)))
        return LedgerTail(entries, tuple(size for _, size in rows[:fit]), more=len(rows) > fit, hash_before=hash_before)

    @reads
    def entry(self, connection: Connection, entry: str) -> EntryView | None:
        row = connection.execute(select(*_NUMBERED).where(LEDGER.c.id == without_nul(entry))).first()
        return row_to_view(row) if row else None

    @reads_snapshot
    def entries_about(self, connection: Connection, job: str, types: Iterable[EventType], about: str) -> tuple[EntryView, ...]:
        """Return a job's entries of these types about one thing (such as a credential), in order; of each type at most the newest
        MAX_ENTRIES_PER_TYPE.
        """
        rows: list[Any] = []
        for kind in types:
            # A range of ids uses the index: the thing's own id, and that id with `/` and more. `0` follows `/`.
            first = f"{job}/{kind.value}/{about}"
            theirs = or_(LEDGER.c.id == first, (LEDGER.c.id >= f"{first}/") & (LEDGER.c.id < f"{first}0"))
            rows += connection.execute(select(*_NUMBERED).where(theirs).order_by(LEDGER.c.seq.desc()).limit(MAX_ENTRIES_PER_TYPE)).all()
        return tuple(row_to_view(row) for row in sorted(rows, key=lambda row: row.seq))

    @reads
    def newest_of_jobs(
        self, connection: Connection, jobs: Collection[str], types: Iterable[EventType], *, limit: int
    ) -> tuple[EntryView, ...]:
        """Return entries of these types in these jobs' chains: newest job first, and in each job newest entry first."""
        theirs = select(*_NUMBERED).where(LEDGER.c.job.in_(jobs), has_type(types))
        return tuple(map(row_to_view, connection.execute(theirs.order_by(LEDGER.c.job.desc(), LEDGER.c.seq.desc()).limit(limit))))

    @reads
    def span(self, connection: Connection, since: datetime, until: datetime) -> LedgerSpan | None:
        """Return the first and last position of the entries from `since` until before `until`; None if there are none."""
        first, last = connection.execute(span_statement(since, until)).one()
        return None if first is None else LedgerSpan(first, last)

    @reads
    def ids(self, connection: Connection, job: str, types: Iterable[EventType]) -> tuple[str, ...]:
        """Return the ids of all of a job's entries of these types, in order. Much faster than reading the entries."""
        theirs = select(LEDGER.c.id).where(LEDGER.c.job == job, has_type(types)).order_by(LEDGER.c.seq)
        return tuple(connection.execute(theirs).scalars())

    @reads
    def with_ids(self, connection: Connection, ids: Collection[str]) -> tuple[EntryView, ...]:
        """Return the entries with these ids, in order. Unknown ids are left out."""
        return tuple(map(row_to_view, connection.execute(select(*_NUMBERED).where(LEDGER.c.id.in_(ids)).order_by(LEDGER.c.position))))

    @reads
    def existing_ids(self, connection: Connection, ids: Collection[str]) -> frozenset[str]:
        """Return the subset of these entry ids that is in the ledger."""
        return frozenset(connection.execute(select(LEDGER.c.id).where(LEDGER.c.id.in_(ids))).scalars())

    @reads_snapshot
    def verify(self, connection: Connection) -> LedgerReport:
        """Verify every chain, one entry at a time."""
        problems: list[ChainProblem] = []
        jobs = 0
        heads = (ChainHead(row.job, row.seq, row.hash) for row in _stream_rows(connection, select(HEADS).order_by(HEADS.c.job)))
        for item in compare_with_heads(chain_ends(_stream_entries(connection)), heads):
            if isinstance(item, ChainHead):
                jobs += 1
            elif len(problems) < MAX_PROBLEMS:
                problems.append(item)
        count, newest = connection.execute(select(func.count(), func.coalesce(func.max(LEDGER.c.position), 0)).select_from(LEDGER)).one()
        if (missing := newest - count) and len(problems) < MAX_PROBLEMS:
            removed = f"{missing} positions are empty: whole chains were removed"
            message = removed if missing > 0 else f"{-missing} entries share a position with another entry"
            problems.append(ChainProblem(job=UNATTRIBUTED_CHAIN, seq=0, fault=Fault.MISSING, message=message))
        return LedgerReport(entries=count, jobs=jobs, problems=tuple(problems))

    @reads
    def head(self, connection: Connection) -> LedgerHead:
        """Return the newest entry. Its position is the number of entries, because positions ascend without gaps."""
        newest = connection.execute(select(LEDGER.c.position, LEDGER.c.hash).order_by(LEDGER.c.position.desc()).limit(1)).first()
        position, digest = newest or (0, None)
        return LedgerHead(entries=position, position=position, hash=digest)

    @reads_snapshot
    def news(self, connection: Connection, after: int, *, types: Iterable[EventType]) -> tuple[tuple[EntryView, ...], int]:
        """Return the entries of these types after a position, oldest first, and the position up to which they were read.

        For frequent callers: pass that position the next time, so that no entry is read twice.
        """
        until = min(newest_position(connection), after + MAX_NEWS_SPAN)
        place = (LEDGER.c.position > after) & (LEDGER.c.position <= until) & has_type(types)
        rows = connection.execute(select(*_NUMBERED).where(place).order_by(LEDGER.c.position)).all()
        return tuple(map(row_to_view, rows)), until

    @reads_snapshot
    def newest_checkpoint(self, connection: Connection) -> EntryView | None:
        """Return the newest entry that records a checkpoint: the last by position, because a console's clock may be wrong."""
        its = select(*_NUMBERED).where(LEDGER.c.type == EventType.LEDGER_CHECKPOINTED.value).limit(1)
        head = select(func.max(LEDGER.c.position)).scalar_subquery()
        # Only the newest entries are walked by position: without a checkpoint among them, that would be the whole ledger.
        newest = its.where(LEDGER.c.position > head - RECENT_ENTRIES).order_by(LEDGER.c.position.desc())
        row = connection.execute(newest).first() or connection.execute(its.order_by(*_NEWEST_FIRST)).first()
        return row_to_view(row) if row else None

    def leaves(self, after: int, until: int) -> Iterator[bytes]:
        """Yield the leaves of the entries at the positions `after` + 1 to `until`, in order."""
        statement = select(LEDGER.c.position, LEDGER.c.hash).where(LEDGER.c.position <= until)
        return (leaf_of(row.hash) for row in self._iterate_rows(statement, by=(LEDGER.c.position,), after=(after,)))

    def append(self, events: Iterable[Event]) -> tuple[EntryView, ...]:
        """Append events and apply them to the read model, in one transaction. Return the entries that are new."""
        batch = tuple(events)
        if not batch:
            return ()
        entries = self._commits.run(lambda connection: ledger_writer.record(connection, batch))
        return tuple(row_to_view((position, *entry)) for position, entry in entries)

    def stored_entries(self, types: Sequence[str], span: LedgerSpan) -> Iterator[StoredEntry]:
        """Yield the entries in a span, in order: position, job, id, type, at and data, as stored."""
        columns = (LEDGER.c.position, LEDGER.c.job, LEDGER.c.id, LEDGER.c.type, LEDGER.c.at, LEDGER.c.data)
        statement = select(*columns).where(LEDGER.c.position <= span.last, has_type(types))
        # Rows are tuples. Converting them would cost as much as reading them.
        return self._iterate_rows(statement, by=(LEDGER.c.position,), after=(span.first - 1,))  # type: ignore[return-value]


def span_statement(since: datetime, until: datetime) -> Select[Any]:
    """Return the statement for the first and last position of a period."""
    # The offset keeps planners from walking the whole ledger by position to find the first one: the index by time contains the positions.
    period = select(LEDGER.c.position).where(*_period_conditions(since, until)).offset(0).subquery()
    return select(func.min(period.c.position), func.max(period.c.position))


def row_to_view(row: Sequence[Any]) -> EntryView:
    """Return an entry as the API shows it. `row` holds its position, then the fields of a LedgerEntry in their order."""
    entry, data = LedgerEntry(*row[1:]), None
    with suppress(ValueError):
        # `from_json` accepts a depth of 200, which the model's serialization to JSON can handle.
        data = from_json(entry.data)
    # Data that somebody replaced by something else must not keep the other entries from being read. Verification reports it.
    data = data if isinstance(data, dict) else {"unreadable": entry.data}
    return EntryView(position=row[0], **{**entry._asdict(), "at": parse_entry_time(entry.at), "data": data})


def _to_page(rows: Sequence[Sequence[Any]], size: int) -> Page[EntryView]:
    items = tuple(map(row_to_view, rows[:size]))
    return Page(items=items, next=str(items[-1].position) if len(rows) > size else None)


def _stream_entries(connection: Connection) -> Iterator[LedgerEntry]:
    # A row has an entry's fields in their order. Making an entry of each would cost as much as hashing it.
    # If two entries have the same seq in a chain, the one with the higher position is the extra one.
    for number, row in enumerate(_stream_rows(connection, select(*ENTRY_COLUMNS).order_by(LEDGER.c.job, LEDGER.c.seq, LEDGER.c.position))):
        if not number % ROWS_BETWEEN_PAUSES:
            # Hashing holds the interpreter's lock. Let the other threads of this process, which serve requests, run first.
            time.sleep(0)
        yield row  # type: ignore[misc]


def _stream_rows(connection: Connection, statement: Select[Any]) -> Iterator[Row[Any]]:
    with connection.execute(statement, execution_options={"yield_per": ROWS_PER_FETCH}) as result:
        yield from result


def _period_conditions(since: datetime | None, until: datetime | None) -> list[ColumnElement[bool]]:
    """Return conditions for events from `since` until before `until`. Times are texts of the same form and length, so they sort by time."""
    first = [LEDGER.c.at >= moment_text(since)] if since is not None else []
    return [*first, LEDGER.c.at < moment_text(until)] if until is not None else first
