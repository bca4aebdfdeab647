"""Whether something may have been recorded: told by PostgreSQL, or seen cheaply in SQLite. Blocking, for one thread of its own.

Who waits here looks at the ledger itself afterwards, and in any case now and then: what is told is only when to look. So a notice that is
lost (a connection that breaks, a pooler that does not pass notices on) makes news late, never lost.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from typing import Any, Protocol

import psycopg
from sqlalchemy import Engine

CHANNEL = "justenough_ledger"
"""Of PostgreSQL's notices; the writer's transaction sends one when it commits."""
POLL = 0.2
"""Seconds between two looks while there is no connection that notices come by."""
GLANCE = 0.02
"""Seconds between two looks at SQLite's count of commits, each of which reads a few bytes of shared memory."""
RECONNECT = 5.0
"""Seconds between two tries to listen again, as a try may take long."""
CONNECT = 3
"""Seconds that a try may take."""


class Changes(Protocol):
    """One waiter's sight of a store."""

    def wait(self, seconds: float) -> None:
        """Return once something may have been recorded since the last call began to wait, at the latest after `seconds`."""

    def again(self) -> None:
        """Let the next wait return at once: there is more already."""

    def close(self) -> None:
        """End a wait, and every further one at once. Safe from another thread."""


def watch(engine: Engine) -> Changes:
    """Return a sight of an engine's database; connects to nothing yet."""
    return _Notices(engine) if engine.dialect.name == "postgresql" else _Commits(str(engine.url.database))


class _Notices:
    """PostgreSQL's notices, on a connection that does nothing else; polling while there is none."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._connection: psycopg.Connection[Any] | None = None
        self._tried = float("-inf")
        self._over = threading.Event()
        self._more = False

    def wait(self, seconds: float) -> None:
        if self._over.is_set() or self._more:
            self._more = False
            return
        try:
            if self._connection is not None:
                for _ in self._connection.notifies(timeout=seconds, stop_after=1):
                    pass
                return
            if time.monotonic() - self._tried >= RECONNECT:
                self._listen()
                # What was recorded before told nobody.
                return
        except psycopg.Error:
            self._drop()
        self._over.wait(min(POLL, seconds))

    def again(self) -> None:
        self._more = True

    def close(self) -> None:
        self._over.set()
        # Its waits are short; closing a connection that another thread waits on is not safe.

    def __del__(self) -> None:
        self._drop()

    def _listen(self) -> None:
        self._tried = time.monotonic()
        args, options = self._engine.dialect.create_connect_args(self._engine.url)
        known = {**options, "connect_timeout": CONNECT, "application_name": "justenough-listener", "keepalives_idle": 10}
        connection = psycopg.connect(*args, autocommit=True, **known)
        connection.execute(f"LISTEN {CHANNEL}".encode())
        self._connection = connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Commits:
    """SQLite's count of other connections' commits."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._seen: int | None = None
        self._over = threading.Event()

    def wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not self._over.is_set():
            try:
                version = self._version()
            except sqlite3.Error:
                self._drop()
                version = None
            if version is None or version != self._seen:
                self._seen = version
                # Without the count, each look may be worth it.
                self._over.wait(POLL if version is None else 0)
                return
            if (left := end - time.monotonic()) <= 0:
                return
            self._over.wait(min(GLANCE, left))

    def again(self) -> None:
        self._seen = None

    def close(self) -> None:
        self._over.set()

    def __del__(self) -> None:
        self._drop()

    def _version(self) -> int:
        if self._connection is None:
            self._connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False)
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        return int(version)

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
