"""Connections and transactions of both databases, and their errors translated. Knows no table.

SQLite: WAL, synchronous=FULL, writers begin IMMEDIATE (deferred writers forked the chain when we tried). PostgreSQL: READ COMMITTED, and one
advisory lock that lets one writer's transaction at a time assign ledger positions, so that they ascend in the order of commits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from psycopg.errors import UndefinedColumn, UndefinedTable
from sqlalchemy import Connection, Engine, Executable, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from justenough.adapters.store.errors import StoreNotMigrated, StoreUnavailable
from justenough.domain.core.errors import GiveUp

BUSY_TIMEOUT_S = 30
"""How long a writer waits for another writer's transaction."""
IDLE_IN_TRANSACTION_TIMEOUT_MS = 30_000
"""PostgreSQL ends a transaction whose client went silent, because it may hold the lock that all writers need."""
CONNECT_TIMEOUT_S = 10
POOL_SIZE = 16
PREPARE_AFTER_USES = 5
"""Uses after which psycopg prepares a writer's statement; psycopg's own default."""
WRITERS_LOCK_KEY = 0x6A656C6564676572 % 2**63
"""Key of the advisory lock: the bytes of `jeledger`."""


class UnusableUrl(GiveUp):
    """The store's URL names a database that this version cannot use."""


def open_engine(url: str) -> Engine:
    """Return an engine for a store's URL. Does not connect yet. Raises UnusableUrl."""
    parsed = _parse_url(url)
    if parsed.get_backend_name() == "sqlite":
        return _sqlite_engine(parsed)
    options = f"-c lock_timeout={BUSY_TIMEOUT_S}s -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_TIMEOUT_MS} -c timezone=UTC"
    connect = {"connect_timeout": CONNECT_TIMEOUT_S, "options": options, "application_name": "justenough"}
    return create_engine(
        parsed, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_timeout=BUSY_TIMEOUT_S, pool_pre_ping=True, connect_args=connect
    )


@contextmanager
def read_transaction(engine: Engine) -> Iterator[Connection]:
    """Yield a connection for reading. All its statements see the same moment. Raises StoreUnavailable."""
    with translate_errors(), engine.connect() as connection:
        # An SQLite transaction always is such a snapshot.
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="REPEATABLE READ")
            _set_prepare_threshold(connection, after=None)
        yield connection


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose transaction is the only one that writes. Commits at the end. Raises StoreUnavailable."""
    with translate_errors(), engine.connect().execution_options(je_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            _set_prepare_threshold(connection, after=PREPARE_AFTER_USES)
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": WRITERS_LOCK_KEY})
        yield connection


def _set_prepare_threshold(connection: Connection, *, after: int | None) -> None:
    """Set after how many uses psycopg prepares a statement; None for never.

    A prepared statement soon has one plan for all values. That saves the writer a quarter of its time, but would make a list read all jobs
    to find a rare value.
    """
    driver: Any = connection.connection.driver_connection
    driver.prepare_threshold = after


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate the errors of a database that does not answer. Messages are the driver's alone: no statement, no values."""
    try:
        yield
    except PoolTimeout as error:
        message = "the store's connections are all in use"
        raise StoreUnavailable(message) from error
    except DBAPIError as error:
        if isinstance(error.orig, UndefinedTable | UndefinedColumn) or str(error.orig).startswith(("no such table", "no such column")):
            message = f"the store is not migrated to this version: {_driver_message(error)}"
            raise StoreNotMigrated(message) from error
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated:
            message = f"the store does not answer: {_driver_message(error)}"
            raise StoreUnavailable(message) from error
        raise


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its key exists. Return whether it is new."""
    return connection.execute(_insert_new_statement(connection.dialect.name, table), row).rowcount == 1


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows. Existing rows with the same key get the new values."""
    connection.execute(_upsert_statement(connection.dialect.name, table), rows)


@cache
def _insert_new_statement(dialect: str, table: Table) -> Executable:
    # SQLAlchemy keeps the row count of an insert only on demand.
    return _insert(dialect, table).on_conflict_do_nothing().execution_options(preserve_rowcount=True)


@cache
def _upsert_statement(dialect: str, table: Table) -> Executable:
    statement = _insert(dialect, table)
    rest = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    return statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=rest)


def _insert(dialect: str, table: Table) -> postgresql.Insert | sqlite.Insert:
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)


def _parse_url(url: str) -> URL:
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        message = "the database URL is not readable; write sqlite:////absolute/path or postgresql://user:password@host:port/database"
        raise UnusableUrl(message) from error
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    in_memory = parsed.get_backend_name() == "sqlite" and parsed.database in {None, "", ":memory:"}
    if parsed.get_backend_name() not in {"sqlite", "postgresql"} or in_memory:
        message = f"{parsed.drivername} {parsed.database or ''}: the store needs an SQLite file or PostgreSQL".replace("  ", " ")
        raise UnusableUrl(message)
    return parsed


def _sqlite_engine(url: URL) -> Engine:
    connect = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = create_engine(url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_timeout=BUSY_TIMEOUT_S, connect_args=connect)

    @event.listens_for(engine, "do_connect")
    def _private_file(*_: Any) -> None:
        # Readable by its owner alone before anything is in it. SQLite gives its side files the same mode.
        path = Path(str(url.database))
        if not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions by itself: it would begin deferred ones.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("je_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


def _driver_message(error: DBAPIError) -> str:
    """The driver's first line: no statement, no values."""
    return next(iter(str(error.orig).strip().splitlines()), type(error.orig).__name__)
