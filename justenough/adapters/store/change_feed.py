"""Signals when to read the ledger again: on a notice from PostgreSQL, or after a cheap check of SQLite. Blocking; needs its own thread.

The caller reads the ledger after each wait, and also at intervals. A lost notice (a broken connection) therefore only delays an entry.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import quote

import psycopg
from sqlalchemy import Dialect, Engine

from justenough.adapters.store.errors import StoreUnavailable
from justenough.adapters.store.postgres_connection import PostgresConnector, PostgresSession

CHANNEL = "justenough_ledger"
"""PostgreSQL channel. The writer's transaction sends a notice when it commits."""
POLL_INTERVAL_S = 0.2
"""Seconds between two checks while no connection receives notices."""
SQLITE_POLL_INTERVAL_S = 0.02
"""Seconds between two checks of SQLite's commit counter. A check reads a few bytes of shared memory."""
RECONNECT_INTERVAL_S = 5.0
"""Seconds between two attempts to listen again, because an attempt may take long."""


class ChangeFeed(ABC):
    """Makes one thread wait until something may have been recorded."""

    _connection: psycopg.Connection[Any] | sqlite3.Connection | None = None

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._turn = threading.Lock()

    @property
    def is_closed(self) -> bool:
        return self._ended.is_set()

    def wait(self, seconds: float) -> None:
        """Return once something may have been recorded since the last call, at the latest after `seconds`."""
        with self._turn:
            if not self.is_closed:
                self._wait(seconds)
        if self.is_closed:
            self.close()

    def close(self) -> None:
        """End the current wait; later waits return immediately. Safe from another thread."""
        self._ended.set()
        # If a thread waits on the connection, that thread closes it.
        if self._turn.acquire(blocking=False):
            try:
                self._drop()
            finally:
                self._turn.release()

    @abstractmethod
    def skip_next_wait(self) -> None:
        """Make the next wait return immediately, because there is already more to read."""

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @abstractmethod
    def _wait(self, seconds: float) -> None: ...


class _PostgresChangeFeed(ChangeFeed):
    """Waits for PostgreSQL's notices on a separate connection. Polls while there is no such connection, and always behind a pooler."""

    def __init__(self, connector: PostgresConnector, dialect: Dialect) -> None:
        super().__init__()
        self._connector = connector
        self._dialect = dialect
        self._connection: psycopg.Connection[Any] | None = None
        self._session: PostgresSession | None = None
        self._tried = float("-inf")
        self._more = False

    def skip_next_wait(self) -> None:
        self._more = True

    def _wait(self, seconds: float) -> None:
        if self._more:
            self._more = False
            return
        try:
            if self._connection is not None and self._session is not None and not self._connector.is_current(self._session):
                self._drop()
                self._tried = float("-inf")
            if self._connection is not None:
                for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                    pass
                return
            # Behind a pooler no notices arrive: it gives the listening session to another client.
            may_listen = self._session is None or self._session.is_direct
            if may_listen and time.monotonic() - self._tried >= RECONNECT_INTERVAL_S:
                self._tried = time.monotonic()
                self._connection, self._session = self._connector.connect_listener(self._dialect)
                if self._session.is_direct:
                    self._connection.execute(f"LISTEN {CHANNEL}".encode())
                else:
                    self._drop()
                # Entries may have been recorded before this connection listened.
                return
        except (psycopg.Error, StoreUnavailable):
            self._drop()
        self._ended.wait(min(POLL_INTERVAL_S, seconds))


class _SqliteChangeFeed(ChangeFeed):
    """Detects a change by SQLite's counter of other connections' commits."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seen: int | None = None

    def skip_next_wait(self) -> None:
        self._seen = None

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self.is_closed:
            try:
                if self._connection is None:
                    uri = f"file:{quote(self._path)}?mode=ro"
                    self._connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
                (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            except sqlite3.Error:
                self._drop()
                # Without the counter, only reading the ledger shows whether there are new entries.
                self._ended.wait(min(POLL_INTERVAL_S, seconds))
                return
            if version != self._seen:
                self._seen = version
                return
            if (left := end - time.monotonic()) <= 0:
                return
            self._ended.wait(min(SQLITE_POLL_INTERVAL_S, left))


def open_change_feed(engine: Engine, connector: PostgresConnector | None) -> ChangeFeed:
    """Return a change feed of a database. Does not connect yet."""
    return _PostgresChangeFeed(connector, engine.dialect) if connector else _SqliteChangeFeed(str(engine.url.database))
