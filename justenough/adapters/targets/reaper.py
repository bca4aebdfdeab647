"""The worker's own way to end the users of jobs in one PostgreSQL target. It does not depend on Vault's plugin or on a new connection.

Before anything is issued at a target, the worker has this connection. It waits in an open transaction that has read the catalogs that ending a
session reads, and so holds their locks: sessions can be ended from it even if a job has filled PostgreSQL's lock table or taken every
connection. The transaction holds no snapshot, so it keeps nothing from being vacuumed (docs/decisions/0065-access-dies-before-its-role.md).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import structlog

from justenough.adapters.targets.postgres import (
    TargetDown,
    TargetInspection,
    TargetTrace,
    connect_as,
    cut_after,
    drop_creds,
    find_names,
    name_patterns,
    target_name,
    why_unreachable,
)
from justenough.adapters.vault import ConnectionRefused, IssuedSecret, Vault
from justenough.domain.catalog.models import Target
from justenough.domain.core.errors import JustEnoughError

STEP_TIMEOUT_S = 5
"""Limit for one step of ending a job's users. Each waits for locks and sessions for much less."""
TURN_TIMEOUT_S = 10.0
"""Seconds that one job's end waits for another's at the same target."""
KEEP_INTERVAL_S = 5.0
"""Seconds between two checks of the kept connection."""
MAX_CREDS_AGE_FRACTION = 0.5
"""Fraction of the life of the connection's credential after which it is replaced."""
NOT_ISSUED_TEXT = "; nothing is issued where users could not be ended"
NO_JOB = "j-none-00000000000000000000000000"
END_SQL = "SELECT public.je_end_users(%s::text, %s::text)"
END_SPACE_SQL = "SELECT public.je_end_space(%s::text)"
PRIME_SQL = (
    "SELECT FROM pg_catalog.pg_roles, pg_catalog.pg_auth_members, pg_catalog.pg_database, pg_catalog.pg_class LIMIT 0",
    f"SELECT public.je_end_users('{NO_JOB}', 'sessions')",
    f"SELECT public.je_end_users('{NO_JOB}', 'holders')",
)
"""Take and keep the locks that ending sessions needs."""
REFRESH_SQL = ("SAVEPOINT refresh", "SELECT FROM pg_catalog.pg_cast LIMIT 0", "ROLLBACK TO refresh")
"""Make the session see memberships that are newer than its transaction: it learns of them when it takes a lock, and this one needs no room in
the lock table.
"""
RESTARTING = re.compile(r"Connection refused|is (starting up|shutting down|not yet accepting connections)|server closed the connection")
"""Matches messages of a server that may answer in a moment."""
log = structlog.get_logger()


class Reaper:
    """One target's kept connection, for one caller at a time."""

    def __init__(self, vault: Vault, target: Target) -> None:
        self._vault = vault
        self._target = target
        self._turn = threading.Lock()
        self._connection: psycopg.Connection[Any] | None = None
        self._creds: IssuedSecret | None = None
        self._created_at = 0.0
        self._worked_at = float("-inf")
        """When the server last carried out a statement of this connection."""
        self._closed = threading.Event()
        self._keeper: threading.Thread | None = None
        self.name = target_name(target)

    def require(self) -> None:
        """Return if users at this target can be ended; raise ConnectionRefused, TargetDown or one of Vault's errors if not."""
        with self._take_turn():
            if self._closed.is_set():
                raise TargetDown(f"target {self.name}: this process is ending")
            try:
                try:
                    self._ensure_primed()
                except psycopg.Error:
                    # Its user may be gone, as after a restart of Vault. Another one is tried before a job fails.
                    self._drop_connection()
                    self._ensure_primed(fresh=True)
            except psycopg.Error as error:
                self._drop_connection()
                why = f"target {self.name}: {why_unreachable(error)}{NOT_ISSUED_TEXT}"
                raise (ConnectionRefused if RESTARTING.search(str(error)) else TargetDown)(why) from error
            if self._keeper is None:
                self._keeper = threading.Thread(target=self._keep, name=f"reaper {self.name}", daemon=True)
                self._keeper.start()

    def has_worked_within(self, seconds: float) -> bool:
        """Whether the server has carried out a statement of this connection within the last seconds. Does not wait for a turn."""
        return time.monotonic() - self._worked_at <= seconds

    def end(self, job: str) -> TargetInspection:
        """End the job's users, then its space. Return what is gone. Raises TargetDown, one of Vault's or psycopg's errors."""
        with self._take_turn():
            try:
                self._end_sessions(job)
                return self._end_all(job)
            finally:
                # The next one may be needed when no connection can be made.
                with suppress(psycopg.Error, JustEnoughError):
                    self._ensure_primed()

    def close(self) -> None:
        self._closed.set()
        with self._take_turn():
            self._drop_connection()
            creds, self._creds = self._creds, None
        if creds is not None:
            drop_creds(self._vault, creds)

    @contextmanager
    def _take_turn(self) -> Iterator[None]:
        if not self._turn.acquire(timeout=TURN_TIMEOUT_S):
            raise TargetDown(f"target {self.name}: another job's users are still being ended")
        try:
            yield
        finally:
            self._turn.release()

    def _end_sessions(self, job: str) -> None:
        """End the sessions of the job, and those of jobs that keep its roles or the whole server busy, from the open transaction."""
        for is_new in (False, True):
            try:
                self._ensure_primed(fresh=is_new)
                for step in ("sessions", "holders"):
                    self._run(*REFRESH_SQL)
                    self._step(job, step)
                self._run("COMMIT")
            except psycopg.Error:
                self._drop_connection()
                if is_new:
                    raise
            else:
                return

    def _end_all(self, job: str) -> TargetInspection:
        """Run each step by itself: a later one is tried even if an earlier one failed."""
        ended, failed = list[str](), list[psycopg.Error]()
        for step in ("rights", "sessions", "login", "owned", "drop"):
            try:
                ended = self._step(job, step)
            except psycopg.Error as error:
                failed.append(error)
        left = self._find(job)
        if left.users or left.empty_roles:
            for step in ("holders", "owned"):
                self._step(job, step)
            ended += self._step(job, "drop")
            left = self._find(job)
        # Targets without spaces may lack the function that deletes them.
        spaces = [str(name) for (name,) in self._execute(END_SPACE_SQL, job)] if left.spaces else []
        if failed and left.users:
            raise failed[0]
        return TargetInspection(
            users=tuple(TargetTrace(self.name, name) for name in ended), spaces=tuple(TargetTrace(self.name, name) for name in spaces)
        )

    def _find(self, job: str) -> TargetInspection:
        connection = self._live()
        with cut_after(connection, STEP_TIMEOUT_S):
            return find_names(connection, self.name, *name_patterns(job))

    def _step(self, job: str, step: str) -> list[str]:
        return [str(name) for (name,) in self._execute(END_SQL, job, step)]

    def _execute(self, query: str, *arguments: str) -> list[tuple[Any, ...]]:
        connection = self._live()
        with cut_after(connection, STEP_TIMEOUT_S):
            rows = connection.execute(query.encode(), arguments or None).fetchall()
        self._worked_at = time.monotonic()
        return rows

    def _run(self, *statements: str) -> None:
        connection = self._live()
        with cut_after(connection, STEP_TIMEOUT_S):
            for statement in statements:
                connection.execute(statement.encode())
        self._worked_at = time.monotonic()

    def _live(self) -> psycopg.Connection[Any]:
        if self._connection is None or self._connection.closed:
            self._connect()
        assert self._connection is not None
        return self._connection

    def _ensure_primed(self, *, fresh: bool = False) -> None:
        """Have a connection that waits in its open transaction. The statement that shows it alive is sent within that transaction."""
        creds = self._creds
        is_old = creds is not None and creds.ttl is not None and time.monotonic() - self._created_at > creds.ttl * MAX_CREDS_AGE_FRACTION
        if fresh or creds is None or is_old:
            self._replace()
        connection = self._live()
        if connection.info.transaction_status is psycopg.pq.TransactionStatus.INTRANS:
            try:
                self._run("SELECT")
            except psycopg.OperationalError:
                # The server was restarted, or somebody ended the session.
                self._drop_connection()
            else:
                return
        elif connection.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE:
            self._drop_connection()
        self._live()
        self._run("BEGIN ISOLATION LEVEL READ COMMITTED", *PRIME_SQL)

    def _replace(self) -> None:
        """Connect with a new credential, then let the old one go. If that fails, keep the old one as long as it works."""
        old_connection, old_creds, old_age = self._connection, self._creds, self._created_at
        self._connection = None
        try:
            self._creds, self._created_at = self._vault.creds(self._target.end), time.monotonic()
            self._connect()
        except (psycopg.Error, JustEnoughError):
            if self._creds is not None and self._creds is not old_creds:
                drop_creds(self._vault, self._creds)
            self._connection, self._creds, self._created_at = old_connection, old_creds, old_age
            if old_connection is None or old_connection.closed:
                raise
            return
        if old_connection is not None:
            with suppress(psycopg.Error, OSError):
                old_connection.close()
        if old_creds is not None:
            drop_creds(self._vault, old_creds)

    def _connect(self) -> None:
        if self._creds is None:
            self._creds, self._created_at = self._vault.creds(self._target.end), time.monotonic()
        try:
            self._connection = connect_as(self._target, self._creds, STEP_TIMEOUT_S)
        except psycopg.OperationalError:
            # Its user may be gone, as after a restore of the target. The next attempt gets another.
            creds, self._creds = self._creds, None
            drop_creds(self._vault, creds)
            raise

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.close()
        self._connection = None

    def _keep(self) -> None:
        """Keep the connection alive and its credential young, until it is closed."""
        while not self._closed.wait(KEEP_INTERVAL_S):
            try:
                with self._take_turn():
                    if not self._closed.is_set():
                        self._ensure_primed()
            except Exception as error:  # noqa: BLE001 - whatever is the matter now, the next look must come
                log.warning("users at a target could not be ended now", target=self.name, error=type(error).__name__)
