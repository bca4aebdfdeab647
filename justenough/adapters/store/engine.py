"""Connections and transactions of both databases, and their errors translated. Knows no table.

SQLite: WAL, synchronous=FULL, writers begin IMMEDIATE (deferred writers forked the chain when we tried). PostgreSQL: READ COMMITTED, and
one advisory lock, so that only one writer's transaction at a time assigns ledger positions, and they ascend in the order of commits. A
transaction's lock and limits end with it, so that a pooler may then give the session to somebody else.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from psycopg.errors import DataCorrupted, IndexCorrupted, InsufficientPrivilege, ReadOnlySqlTransaction, UndefinedColumn, UndefinedTable
from sqlalchemy import Connection, Engine, Executable, Table, create_engine, event, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from justenough.adapters.store.errors import StoreNotMigrated, StoreUnavailable
from justenough.adapters.store.postgres_connection import (
    IDLE_IN_TRANSACTION_TIMEOUT_S,
    LOCK_TIMEOUT_S,
    PostgresConnector,
    PostgresSession,
    StoreLogins,
    first_line,
)
from justenough.domain.core.errors import GiveUp

BUSY_TIMEOUT_S = 30
"""How long an SQLite writer waits for another writer's transaction, and any thread for a free connection."""
POOL_SIZE = 16
SQLITE_CACHE_KB = 4_000
"""Each SQLite connection has a cache of its own. With 16 MB each, a console took 260 MB more for a store of 20,000 jobs, and was no faster:
the system caches the file anyway.
"""
PREPARE_AFTER_USES = 5
"""Uses after which psycopg prepares a writer's statement (psycopg's own default)."""
WRITERS_LOCK_KEY = 0x6A656C6564676572 % 2**63
"""Key of the advisory lock: the bytes of `jeledger`."""
NOT_SQLITE = "file is not a database"
SESSION = "je_session"
"""The name under which each pooled connection to PostgreSQL keeps its PostgresSession."""

T = TypeVar("T")
IsolationLevel = Literal["AUTOCOMMIT", "REPEATABLE READ"]

# One round trip. The limits apply to the wait for the lock, so they must be set before. Whatever the database's or the role's default is, a
# crash of the server loses nothing that was committed.
_LOCK_OUT_OTHER_WRITERS = text(
    "WITH limits AS MATERIALIZED (SELECT set_config('lock_timeout', :lock_timeout, true),"
    " set_config('idle_in_transaction_session_timeout', :idle_timeout, true),"
    " set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), true))"
    " SELECT pg_advisory_xact_lock(:key) FROM limits"
)
_LOCK_VALUES = {"lock_timeout": f"{LOCK_TIMEOUT_S}s", "idle_timeout": f"{IDLE_IN_TRANSACTION_TIMEOUT_S}s", "key": WRITERS_LOCK_KEY}


class UnusableUrl(GiveUp):
    """The store's URL names a database that this version cannot use."""


@dataclass(frozen=True, slots=True)
class Database:
    """An engine and, for PostgreSQL, the connector that opens its connections."""

    engine: Engine
    connector: PostgresConnector | None


def open_database(url: str, *, listen_url: str | None = None, logins: StoreLogins | None = None) -> Database:
    """Return the database of a store's URL. Does not connect yet. Raises UnusableUrl."""
    parsed = parse_url(url)
    if parsed.get_backend_name() == "postgresql":
        if logins is not None and parsed.password:
            raise UnusableUrl("the store's password cannot come from two places: JUSTENOUGH_DATABASE_URL contains one; remove it there")
        listen = parse_url(listen_url, setting="JUSTENOUGH_DATABASE_LISTEN_URL") if listen_url else None
        connector = PostgresConnector(parsed, listen_url=listen, logins=logins)
        return Database(_postgres_engine(connector), connector)
    if logins is not None or listen_url:
        raise UnusableUrl("an SQLite file takes no password, credentials or listen URL: unset them, or correct JUSTENOUGH_DATABASE_URL")
    return Database(_sqlite_engine(parsed), None)


def parse_url(url: str, *, setting: str = "JUSTENOUGH_DATABASE_URL") -> URL:
    """Parse a store's URL, which names an SQLite file or a PostgreSQL database. Raises UnusableUrl."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        expected = "sqlite:////absolute/path or postgresql://user:password@host:port/database"
        # The cause may quote a part of the URL, and so of the password.
        raise UnusableUrl(f"{setting}: the database URL cannot be parsed; write {expected}") from None
    if parsed.drivername in {"postgres", "postgresql"}:
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+psycopg" or (
        parsed.get_backend_name() == "sqlite" and parsed.database not in {None, "", ":memory:"}
    ):
        return parsed
    where = f"{parsed.drivername} {parsed.database}" if parsed.database else parsed.drivername
    raise UnusableUrl(f"{setting}: {where}: the store needs an SQLite file or PostgreSQL")


def _postgres_engine(connector: PostgresConnector) -> Engine:
    engine = create_engine(
        connector.url,
        pool_size=POOL_SIZE,
        max_overflow=POOL_SIZE,
        pool_timeout=BUSY_TIMEOUT_S,
        use_native_hstore=False,
        # Whatever the database's or the role's default is: with a snapshot from before it got the lock, a writer would miss what others wrote.
        isolation_level="READ COMMITTED",
    )

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, record: Any, args: Any, options: Any) -> Any:
        connection, session = connector.connect(args, options)
        if record is not None:
            record.info[SESSION] = session
        return connection

    @event.listens_for(engine, "checkout")
    def _require_current_login(_connection: Any, record: Any, _proxy: Any) -> None:
        if not connector.is_current(record.info[SESSION]):
            raise DisconnectionError  # The pool opens another one.

    @event.listens_for(engine, "handle_error")
    def _replace_connections(context: Any) -> None:
        # A connection outlives its user.
        if context.connection is not None and isinstance(context.original_exception, InsufficientPrivilege):
            connector.reject(context.connection.info[SESSION].login)
        # After a failover, open connections may lead to a standby while the address leads to the primary. The pool opens others.
        if isinstance(context.original_exception, ReadOnlySqlTransaction):
            context.is_disconnect = True

    return engine


def close_connections(engine: Engine) -> None:
    """Close the idle connections now, and the others when each is returned: SQLAlchemy alone would not close the latter."""

    @event.listens_for(engine, "checkin")
    def _close(connection: Any, _record: Any) -> None:
        # None: it was already found unusable, and closed.
        if connection is not None:
            connection.close()

    engine.dispose()


@contextmanager
def read_transaction(engine: Engine, *, isolation_level: IsolationLevel = "REPEATABLE READ") -> Iterator[Connection]:
    """Yield a connection for reading. By default, all its statements see the same snapshot. Raises StoreUnavailable."""
    with translate_errors(), engine.connect() as connection:
        # An SQLite transaction is always a snapshot, and costs no round trip.
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level=isolation_level)
            _set_prepare_threshold(connection, after=None)
        yield connection
        # Otherwise the pool would roll back, and psycopg would forget the writers' statements that it has prepared.
        connection.commit()


def read(engine: Engine, query: Callable[[Connection], T], *, snapshot: bool) -> T:
    """Return the result of a query. Raises StoreUnavailable.

    `snapshot`: whether all its statements must see the same snapshot. A query of one statement does not need that, which saves the round
    trips of BEGIN and ROLLBACK on PostgreSQL.
    """

    def run() -> T:
        with read_transaction(engine, isolation_level="REPEATABLE READ" if snapshot else "AUTOCOMMIT") as connection:
            return query(connection)

    return _on_live_connection(run)


@contextmanager
def write_transaction(engine: Engine) -> Iterator[Connection]:
    """Yield a connection whose transaction is the only one that writes. Commits at the end. Raises StoreUnavailable."""
    with ExitStack() as stack:
        yield _on_live_connection(lambda: stack.enter_context(_lock_out_other_writers(engine)))


@contextmanager
def _lock_out_other_writers(engine: Engine) -> Iterator[Connection]:
    with translate_errors(), engine.connect().execution_options(je_write=True) as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            session: PostgresSession = connection.info[SESSION]
            # Behind a pooler, the next transaction may run in a session that does not know the statement.
            _set_prepare_threshold(connection, after=PREPARE_AFTER_USES if session.is_direct else None)
            connection.execute(_LOCK_OUT_OTHER_WRITERS, _LOCK_VALUES)
        yield connection


def _on_live_connection(run: Callable[[], T]) -> T:
    """Return the result of `run`; call it again if the pooled connection was dead. The pool then replaces all of its older connections.

    Checking each connection before its use would cost a round trip each time.
    """
    try:
        return run()
    except StoreUnavailable as error:
        if not (isinstance(error.__cause__, DBAPIError) and error.__cause__.connection_invalidated):
            raise
    return run()


def _set_prepare_threshold(connection: Connection, *, after: int | None) -> None:
    """Set the number of uses after which psycopg prepares a statement; None for never.

    A prepared statement soon has one plan for all values. That saves the writer a quarter of its time, but could make a list query read all
    jobs to find a rare value.
    """
    driver: Any = connection.connection.driver_connection
    driver.prepare_threshold = after


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate the errors of a database that does not answer.

    Messages contain only the first line of the driver's message: no statement, no values.
    """
    try:
        yield
    except PoolTimeout as error:
        raise StoreUnavailable("the store's connections are all in use") from error
    except DBAPIError as error:
        line = first_line(error.orig or error)
        if isinstance(error.orig, UndefinedTable | UndefinedColumn) or line.startswith(("no such table", "no such column")):
            raise StoreNotMigrated(f"the store is not migrated to this version: {line}") from error
        if isinstance(error.orig, InsufficientPrivilege):
            raise StoreUnavailable(
                f"the store refused the operation: {line}", remedy="`justenough store check` shows which rights are missing"
            ) from error
        if line.startswith("attempt to write a readonly database"):
            raise StoreUnavailable(f"the store refuses writes: {line}", remedy="make the SQLite file and its folder writable") from error
        if isinstance(error.orig, ReadOnlySqlTransaction):
            raise StoreUnavailable(
                f"the store refuses writes: {line}", remedy="set JUSTENOUGH_DATABASE_URL to the primary server, not a standby"
            ) from error
        if isinstance(error, OperationalError | InterfaceError) or error.connection_invalidated or NOT_SQLITE in line:
            raise StoreUnavailable(f"the store does not answer: {line}") from error
        if type(error) is DatabaseError or isinstance(error.orig, DataCorrupted | IndexCorrupted):
            raise StoreUnavailable(f"the store is damaged: {line}", remedy="repair the database, or restore a backup") from error
        raise


def insert_new(connection: Connection, table: Table, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its key exists. Return whether it is new."""
    statement, _ = _insert_statements(connection.dialect.name, table)
    return connection.execute(statement, row).rowcount == 1


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows. Existing rows with the same key get the new values."""
    _, statement = _insert_statements(connection.dialect.name, table)
    connection.execute(statement, rows)


@cache
def _insert_statements(dialect: str, table: Table) -> tuple[Executable, Executable]:
    """Return the statements that insert a row unless it exists, and that insert or update it."""
    statement = postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
    rest = {column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key}
    # SQLAlchemy keeps the row count of an insert only on demand.
    insert_only = statement.on_conflict_do_nothing().execution_options(preserve_rowcount=True)
    return insert_only, statement.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=rest)


def _sqlite_engine(url: URL) -> Engine:
    connect = {"timeout": BUSY_TIMEOUT_S, "check_same_thread": False}
    engine = create_engine(url, pool_size=POOL_SIZE, max_overflow=POOL_SIZE, pool_timeout=BUSY_TIMEOUT_S, connect_args=connect)

    @event.listens_for(engine, "do_connect")
    def _private_file(*_: Any) -> None:
        # Create the file with mode 0600 before SQLite writes to it. SQLite gives its side files the same mode.
        path = Path(str(url.database))
        try:
            if not path.exists():
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        except OSError as error:
            raise StoreUnavailable(
                f"the store {path} cannot be created: {error.strerror}", remedy="correct JUSTENOUGH_DATABASE_URL"
            ) from error

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: Any) -> None:
        # The driver must not begin transactions itself: it would begin deferred ones.
        connection.isolation_level = None
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"cache_size=-{SQLITE_CACHE_KB}"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("je_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine
