"""The base of every repository of the store: transactions, and what many queries share.

Each query is a function of a connection; a decorator makes it a method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Column, ColumnElement, Connection, Engine, Executable, Row, Select, Table, and_, case, func, or_, select

from justenough.adapters.store.engine import read
from justenough.adapters.store.group_commit import GroupCommitter
from justenough.adapters.store.paging import MAX_PAGE_SIZE, ROWS_PER_FETCH, comes_after
from justenough.adapters.store.tables import JOBS, LEDGER, ORDERS

P = ParamSpec("P")
T = TypeVar("T")
RepositoryT = TypeVar("RepositoryT", bound="Repository")

DEFAULT_PAGE_SIZE = 100
AFTER_EVERY_SUFFIX = "\U0010ffff"
"""Sorts after every character that an id or a word may contain."""
_PARENTS = JOBS.alias("parents")


class Repository:
    """Queries and commands on one subject. Blocking and thread-safe. Every method may raise StoreUnavailable."""

    def __init__(self, engine: Engine, commits: GroupCommitter) -> None:
        self._engine = engine
        self._commits = commits

    def _iterate_rows(self, statement: Select[Any], *, by: Sequence[Column[Any]], after: Sequence[Any] | None = None) -> Iterator[Row[Any]]:
        """Yield the rows of a statement after a key, in the order of its first columns `by`, which together are unique.

        Each page is read in its own transaction: a long one would keep the database from cleaning up.
        """
        while True:
            page = statement if after is None else statement.where(comes_after(by, after))
            rows = read(self._engine, partial(_fetch_rows, page.order_by(*by).limit(ROWS_PER_FETCH)), snapshot=False)
            yield from rows
            if len(rows) < ROWS_PER_FETCH:
                return
            after = rows[-1][: len(by)]


def reads(query: Callable[Concatenate[RepositoryT, Connection, P], T]) -> Callable[Concatenate[RepositoryT, P], T]:
    """Run the method, which executes one statement. For more there is `reads_snapshot`."""

    @wraps(query)
    def run(self: RepositoryT, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return read(self._engine, lambda connection: query(self, connection, *args, **kwargs), snapshot=False)

    return run


def reads_snapshot(query: Callable[Concatenate[RepositoryT, Connection, P], T]) -> Callable[Concatenate[RepositoryT, P], T]:
    """Run the method in one read transaction, so that all its statements see the same snapshot."""

    @wraps(query)
    def run(self: RepositoryT, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return read(self._engine, lambda connection: query(self, connection, *args, **kwargs), snapshot=True)

    return run


def writes(command: Callable[Concatenate[RepositoryT, Connection, P], T]) -> Callable[Concatenate[RepositoryT, P], T]:
    """Run the method in one group commit and return once it is committed. The method may be run more than once."""

    @wraps(command)
    def run(self: RepositoryT, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._commits.run(lambda connection: command(self, connection, *args, **kwargs))

    return run


def _fetch_rows(statement: Select[Any], connection: Connection) -> Sequence[Row[Any]]:
    return connection.execute(statement).all()


def without_nul(text: str) -> str:
    """Return a text that a query may compare rows with: PostgreSQL rejects NUL, which no row contains."""
    return text.replace("\0", "\ufffd")


def count_rows(connection: Connection, table: Table, *conditions: ColumnElement[bool]) -> int:
    """Return the number of a table's rows that meet every condition."""
    return int(connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one())


def newest_position(connection: Connection) -> int:
    """Return the position of the ledger's newest entry; 0 if it is empty."""
    return int(connection.execute(select(func.coalesce(func.max(LEDGER.c.position), 0))).scalar_one())


def id_begins(connection: Connection, table: Table, beginning: str) -> ColumnElement[bool]:
    prefix = without_nul(beginning)
    is_match = and_(table.c.id >= prefix, table.c.id < prefix + AFTER_EVERY_SUFFIX)
    # A range of ids uses the index, because ids sort by code point.
    ids = connection.execute(select(table.c.id).where(is_match).order_by(table.c.id).limit(MAX_PAGE_SIZE + 1)).scalars().all()
    if len(ids) <= MAX_PAGE_SIZE:
        return table.c.id.in_(ids)
    # In this form, planners do not collect and sort every match, but read in the list's order, which finds a page of so many soon.
    return case((is_match, 1)).is_not(None)


def has_type(types: Iterable[str]) -> ColumnElement[bool]:
    """Return the condition that a ledger entry has one of these types, for statements about certain positions or jobs.

    The concatenation keeps SQLite from using the index by type and time: it would read every such entry of the ledger, and sort them.
    """
    return LEDGER.c.type.concat("").in_([str(kind) for kind in types])


def is_own_or_descendant(person: str, part: Table) -> ColumnElement[bool]:
    """Return the condition that a row of `part` (a table with `job_id`) belongs to a job that a person launched, or had the console order, or to
    a descendant of such a job. They may not decide about it. The worker decides by the ledger, not by this.
    """
    chain = select(JOBS.c.id, JOBS.c.parent).where(JOBS.c.id == part.c.job_id).correlate(part).cte("chain", recursive=True, nesting=True)
    chain = chain.union(select(_PARENTS.c.id, _PARENTS.c.parent).join(chain, _PARENTS.c.id == chain.c.parent))
    order = select(ORDERS.c.signed["statement"]["asked_by"].as_string()).where(ORDERS.c.job == JOBS.c.id).correlate(JOBS).scalar_subquery()
    by_console = and_(JOBS.c.requester.startswith("schedule:"), order == person)
    theirs = select(JOBS.c.id).join(chain, JOBS.c.id == chain.c.id).where(or_(JOBS.c.requester_id == person, by_console))
    return theirs.exists()


def fetch_all(connection: Connection, statement: Executable, view: Callable[..., T]) -> tuple[T, ...]:
    """Return every row of a statement as a `view`, whose fields are named like the columns."""
    return tuple(view(**row) for row in connection.execute(statement).mappings())


def fetch_first(connection: Connection, statement: Executable, view: Callable[..., T]) -> T | None:
    """Return the first row of a statement as a `view`; None if there is no row."""
    row = connection.execute(statement).mappings().first()
    return view(**row) if row else None
