"""One PostgreSQL target: finds users and spaces by the job's id in their names or by their exact names, and tries a login.

Every call is bounded. Vault issues the observer's own users under the worker's token. A user that stops working is replaced.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from justenough.adapters.targets.postgres_hazards import PostgresHazards, find_hazards
from justenough.adapters.targets.postgres_locks import find_locks, find_sessions
from justenough.adapters.vault import IssuedSecret, Vault
from justenough.domain.catalog.models import Target
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.secret import Secret

LOOK_TIMEOUT_S = 3
"""Limit for connecting, for inspecting, and for waiting until another inspection of the same target ends."""
MAX_OBSERVER_AGE_S = 5.0
"""An observer then connects again: the target's address may lead to another server by now, while the old one still answers."""
FIND_NAMES_SQL = """
    SELECT false, rolname, public.je_left_of(rolname) FROM pg_catalog.pg_roles
    WHERE rolname = ANY (%(names)s) OR (rolname LIKE %(users)s ESCAPE '!' AND rolname NOT LIKE %(spaces)s ESCAPE '!')
    UNION SELECT true, nspname, NULL FROM pg_catalog.pg_namespace WHERE nspname LIKE %(spaces)s ESCAPE '!'
    UNION SELECT true, rolname, NULL FROM pg_catalog.pg_roles WHERE rolname LIKE %(spaces)s ESCAPE '!'
    ORDER BY 1, 2
"""
"""Selects users (false), with what is left of each, and spaces (true). A space is a schema and the role that owns its objects; its remains may
be one of the two.
"""
END_USERS_SQL = "SELECT public.je_end_users(%s::text)"

_Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class TargetTrace:
    """An existing user or space: its target (host:port/dbname) and its name."""

    target: str
    name: str
    left: tuple[str, ...] = ()
    """What a user still has: sessions, a login, rights, objects of its own."""


REFUSED_CONNECTION = re.compile(
    r"FATAL:.*|Connection refused|timeout expired|Name or service not known|server closed the connection unexpectedly"
    r"|server is in hot standby mode"
)
"""Matches messages of PostgreSQL before a login, and of libpq if it cannot connect. They never quote a password."""
REFUSED_LOGIN = re.compile(
    r"password authentication failed|role .* does not exist|is not permitted to log in|permission denied for database"
)
"""Matches PostgreSQL's messages if it refuses this user."""


@dataclass(frozen=True, slots=True)
class TargetInspection:
    """The result of inspecting some targets: what was found, which targets were inspected, and why others could not be."""

    users: tuple[TargetTrace, ...] = ()
    """Users that could still do something."""
    empty_roles: tuple[TargetTrace, ...] = ()
    """Users without any right, login, session or object, whose role could not be dropped yet: dead, because nobody can use them."""
    spaces: tuple[TargetTrace, ...] = ()
    inspected: tuple[str, ...] = ()
    space_targets: tuple[str, ...] = ()
    """The inspected targets in which the requested actions create spaces."""
    locks: tuple[str, ...] = ()
    hazards: tuple[PostgresHazards, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def traces(self) -> tuple[TargetTrace, ...]:
        return (*self.users, *self.empty_roles, *self.spaces)


class TargetDown(RetryLater):
    """A target does not answer, or not in time."""


class TargetObserver:
    """One target, with a connection as its observer, for one caller at a time."""

    def __init__(self, vault: Vault, target: Target) -> None:
        self._vault = vault
        self.target = target
        self._lock = threading.Lock()
        self._creds: IssuedSecret | None = None
        self._connection: _Connection | None = None
        self._connected_at = 0.0
        self.name = target_name(target)

    def find(self, users: str, spaces: str, names: Collection[str] = ()) -> TargetInspection:
        """Find the users and spaces whose names match these LIKE patterns, and users with these exact names. Raises like `_look`."""
        return self._look(lambda connection: find_names(connection, self.name, users, spaces, names))

    def find_locks(self, names: Collection[str]) -> TargetInspection:
        """Find the locks on users and spaces of these names, and the users' sessions. Raises like `_look`."""

        def read(connection: _Connection) -> TargetInspection:
            return TargetInspection(locks=find_locks(connection, self.name, names) + find_sessions(connection, self.name, names))

        return self._look(read)

    def find_hazards(self) -> TargetInspection:
        """Find what a job could do in this target beside its task. Raises like `_look`."""
        return self._look(lambda connection: TargetInspection(hazards=(find_hazards(connection, self.target.postgres),)))

    def _look(self, read: Callable[[_Connection], TargetInspection]) -> TargetInspection:
        """Return what `read` finds as the observer. Raises TargetDown, one of Vault's or psycopg's errors."""
        if not self._lock.acquire(timeout=LOOK_TIMEOUT_S):
            raise TargetDown("an earlier check of this target is still hanging")
        try:
            if time.monotonic() - self._connected_at > MAX_OBSERVER_AGE_S:
                self._drop_connection()
            if self._connection is not None:
                try:
                    with cut_after(self._connection, LOOK_TIMEOUT_S):
                        return read(self._connection)
                except psycopg.errors.QueryCanceled:
                    # The target is slow, and a new connection would be as slow.
                    raise
                except psycopg.Error:
                    self._drop_connection()
            self._connected_at = time.monotonic()
            self._connection = self._reconnect()
            try:
                with cut_after(self._connection, LOOK_TIMEOUT_S):
                    return read(self._connection)
            except psycopg.Error:
                self._drop_connection()
                raise
        finally:
            self._lock.release()

    def close(self) -> None:
        with self._lock:
            self._drop_connection()
            if self._creds is not None:
                self._drop_creds(self._creds)
            self._creds = None

    def _reconnect(self) -> _Connection:
        """Connect as the current user, or as a new one if the target no longer accepts it."""
        if self._creds is not None:
            try:
                return self._connect(self._creds, LOOK_TIMEOUT_S)
            except psycopg.errors.ConnectionTimeout:
                raise
            except psycopg.Error:
                # Revoke it: a target that accepts no connections would get a further user with each check.
                self._drop_creds(self._creds)
                self._creds = None
        creds = self._vault.creds(self.target.observe)
        try:
            connection = self._connect(creds, LOOK_TIMEOUT_S)
        except psycopg.Error:
            # Every check would leave another user in a target that has no free connection.
            self._drop_creds(creds)
            raise
        self._creds = creds
        return connection

    def _connect(self, creds: IssuedSecret, seconds: int) -> _Connection:
        return connect_as(self.target, creds, seconds)

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.close()
        self._connection = None

    def _drop_creds(self, creds: IssuedSecret) -> None:
        drop_creds(self._vault, creds)


def find_names(connection: _Connection, target: str, users: str, spaces: str, names: Collection[str] = ()) -> TargetInspection:
    """Find the users and spaces whose names match these LIKE patterns, and users with these exact names."""
    alive, empty, found = list[TargetTrace](), list[TargetTrace](), list[TargetTrace]()
    for is_space, name, left in connection.execute(FIND_NAMES_SQL, {"users": users, "spaces": spaces, "names": list(names)}):
        if is_space:
            found.append(TargetTrace(target, str(name)))
        elif left is not None:
            # A role that was dropped since the query began has nothing left that could be listed.
            (alive if left else empty).append(TargetTrace(target, str(name), tuple(map(str, left))))
    return TargetInspection(tuple(alive), tuple(empty), tuple(found))


def connect_as(target: Target, creds: IssuedSecret, seconds: int) -> _Connection:
    """Connect as a user of our own, with this limit for each statement. Raises psycopg.Error."""
    return psycopg.connect(
        target.postgres,
        user=creds.fields["username"].reveal(),
        password=creds.fields["password"].reveal(),
        autocommit=True,
        connect_timeout=LOOK_TIMEOUT_S,
        application_name="justenough",
        target_session_attrs="primary",  # A standby may lag behind, so finding no user there proves nothing.
        # Whatever the database's default is: names that come as bytes equal no name of a user.
        client_encoding="utf8",
        # A function that somebody made in the target, with the name and arguments of a built-in one, must not run instead.
        options=f"-c statement_timeout={seconds}s -c lock_timeout=2s -c idle_in_transaction_session_timeout=0"
        " -c search_path=pg_catalog,pg_temp",
    )


def drop_creds(vault: Vault, creds: IssuedSecret) -> None:
    """Revoke a user of our own. If that fails, its short ttl ends it."""
    if creds.lease_id:
        with suppress(RetryLater, GiveUp):
            vault.revoke_lease(creds.lease_id)


def log_in_once(target: Target, username: Secret, password: Secret) -> str | None:
    """Log in to a target as one of its users; return None, or why the server refuses this user. Raises TargetDown for any other failure."""
    try:
        with psycopg.connect(
            target.postgres,
            user=username.reveal(),
            password=password.reveal(),
            connect_timeout=LOOK_TIMEOUT_S,
            application_name="justenough",
        ) as connection:
            connection.execute("SELECT pg_catalog.now()")
    except psycopg.OperationalError as error:
        why = why_unreachable(error)
        # A server without a free connection, for example, says nothing about the user.
        if REFUSED_LOGIN.search(why):
            return why
        raise TargetDown(f"cannot log in to {target_name(target)}: {why}") from None
    return None


def target_name(target: Target) -> str:
    """Return a target's host, port and database for messages. The catalog's text may contain more, such as a password."""
    where = conninfo_to_dict(target.postgres)
    return f"{where.get('host') or where.get('hostaddr') or 'local'}:{where.get('port') or 5432}/{where.get('dbname') or ''}"


def escape_like(text: str) -> str:
    """Return a text that LIKE … ESCAPE '!' matches literally."""
    return re.sub(r"([!%_])", r"!\1", text)


def name_patterns(job: str) -> tuple[str, str]:
    """Return LIKE patterns for the names of a job's users and of its spaces."""
    return f"%{escape_like(job)}%", f"space-{escape_like(job)}"


def why_unreachable(error: Exception) -> str:
    """Return why a connection failed, in the words of the server or the system. For PostgreSQL's other messages, return only the type: they
    can quote values.
    """
    refusal = REFUSED_CONNECTION.search(str(error)) if isinstance(error, psycopg.OperationalError) else None
    if refusal is None:
        return type(error).__name__
    why = refusal[0].removeprefix("FATAL:").strip()
    # PostgreSQL says the same about a wrong password and about a user whose VALID UNTIL has passed, by its own clock.
    may_be_over = "password authentication failed" in why
    return f"{why}; if Vault has just made this user, is the target's clock ahead of Vault's?" if may_be_over else why


@contextmanager
def cut_after(connection: _Connection, seconds: float) -> Iterator[None]:
    """Shut the connection down if its server hangs, because only the server enforces a statement's timeout."""
    plug = socket.socket(fileno=os.dup(connection.fileno()))

    def shut_down() -> None:
        with suppress(OSError):
            plug.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds + 0.5, shut_down)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        plug.close()
