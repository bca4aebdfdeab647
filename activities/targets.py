"""Looks into targets for users that carry a job's id, and ends them there. Knows PostgreSQL; decides nothing.

A target that is down is a failure of that target only, and every call is bounded. Its own users come from Vault, under the worker's
token, and are replaced whenever they stop working.
"""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from activities.vault import Issued, Vault
from justenough.access import Action, Credential
from justenough.catalog import Catalog, Target
from justenough.errors import GiveUp, RetryLater

SECONDS = 3
"""For a connect, a look, and the wait for another's look at the same target."""
END_SECONDS = 10
"""The function that ends users waits for their sessions to go."""
AT_ONCE = 8
USERS_OF = "SELECT rolname FROM pg_catalog.pg_roles WHERE rolname LIKE %s ESCAPE '!' ORDER BY rolname"
END_USERS = "SELECT je_end_users(%s)"
JOB_IN_NAME = r"-token-(j-{installation}-[0-9a-z]{{26}})-"

Asked = AbstractSet[tuple[str, str]]
"""Resource and action of each request of a job."""


@dataclass(frozen=True, slots=True)
class FoundUser:
    """A user that is there: where (host:port/dbname) and its name."""

    target: str
    name: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at some targets found, at which it looked, and why it could not look at others."""

    found: tuple[FoundUser, ...] = ()
    looked: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


class TargetDown(RetryLater):
    """A target does not answer, or not in time."""


class Targets:
    """Every target of the catalog, each with one kept connection."""

    def __init__(self, vault: Vault, catalog: Callable[[], Catalog], *, installation: str) -> None:
        self._vault = vault
        self._catalog = catalog
        self._job = re.compile(JOB_IN_NAME.format(installation=re.escape(installation)))
        self._like = f"%-token-j-{escaped(installation)}-%"
        self._eyes: dict[Target, _Eye] = {}
        self._lock = threading.Lock()

    def look(self, job: str, asked: Asked | None = None) -> Look:
        """Look for users that carry a job's id: in the targets of these requests, or in all."""
        pattern = f"%-token-{escaped(job)}-%"
        return self._each(asked, lambda eye: eye.users(pattern))

    def users_of(self, job: str, asked: Asked | None = None) -> tuple[FoundUser, ...]:
        """Return the users that carry a job's id, in targets that answer."""
        return self.look(job, asked).found

    def end_users_of(self, job: str, asked: Asked | None = None) -> Look:
        """End every user that carries a job's id; return those that are gone now."""
        return self._each(asked, lambda eye: eye.end(job))

    def jobs(self) -> tuple[set[str], tuple[str, ...]]:
        """Return the ids of this installation's jobs that users in the targets carry, and why some could not be looked at."""
        look = self._each(None, lambda eye: eye.users(self._like))
        return {matched[1] for user in look.found if (matched := self._job.search(user.name))}, look.failures

    def searchable(self, resource: str, action: Action) -> bool:
        """Whether the action's users can be looked for."""
        definition = self._catalog().action(resource, action)
        return definition is not None and definition.target is not None

    def same(self, one: Credential, other: Credential) -> bool:
        """Whether the users of two credentials are looked for in the same target."""
        first, second = (self._catalog().action(item.resource, item.action) for item in (one, other))
        return first is not None and second is not None and first.target == second.target

    def close(self) -> None:
        """Close every connection and end the users that it was opened with."""
        with self._lock:
            eyes, self._eyes = list(self._eyes.values()), {}
        for eye in eyes:
            eye.close()

    def _each(self, asked: Asked | None, act: Callable[[_Eye], list[str]]) -> Look:
        eyes = [self._eye(target) for target in self._wanted(asked)]
        if len(eyes) < 2:
            results = [_tried(eye, act) for eye in eyes]
        else:
            with ThreadPoolExecutor(min(AT_ONCE, len(eyes))) as pool:
                results = list(pool.map(lambda eye: _tried(eye, act), eyes))
        return Look(
            found=tuple(user for result in results for user in result.found),
            looked=tuple(name for result in results for name in result.looked),
            failures=tuple(why for result in results for why in result.failures),
        )

    def _wanted(self, asked: Asked | None) -> tuple[Target, ...]:
        resources = self._catalog().resources
        known = {(name, action.value) for name, resource in resources.items() for action in resource.actions}
        # What was asked for under an earlier catalog may be anywhere: then look everywhere.
        everywhere = asked is None or not asked <= known
        return tuple(
            dict.fromkeys(
                definition.target
                for name, resource in resources.items()
                for action, definition in resource.actions.items()
                if definition.target and (everywhere or (name, action.value) in (asked or ()))
            )
        )

    def _eye(self, target: Target) -> _Eye:
        with self._lock:
            if target not in self._eyes:
                self._eyes[target] = _Eye(self._vault, target)
            return self._eyes[target]


class _Eye:
    """One target: a kept connection as its observer, for one caller at a time."""

    def __init__(self, vault: Vault, target: Target) -> None:
        self._vault = vault
        self._target = target
        self._lock = threading.Lock()
        self._creds: Issued | None = None
        self._connection: psycopg.Connection[Any] | None = None
        where = conninfo_to_dict(target.postgres)
        self.name = f"{where.get('host') or where.get('hostaddr') or 'local'}:{where.get('port') or 5432}/{where.get('dbname') or ''}"

    def users(self, pattern: str) -> list[str]:
        """Return role names that match; raise TargetDown or one of Vault's errors."""
        if not self._lock.acquire(timeout=SECONDS):
            message = "another look at it does not come back"
            raise TargetDown(message)
        try:
            return self._rows(USERS_OF, pattern)
        finally:
            self._lock.release()

    def end(self, job: str) -> list[str]:
        """End the job's users as the reaper, whose own credential lives for this call only."""
        creds = self._vault.creds(self._target.end)
        try:
            with self._connect(creds, END_SECONDS) as connection, _cut_after(connection, END_SECONDS):
                return [str(name) for (name,) in connection.execute(END_USERS, [job])]
        finally:
            self._drop_creds(creds)

    def close(self) -> None:
        """Close the connection and end its user."""
        with self._lock:
            self._drop_connection()
            if self._creds is not None:
                self._drop_creds(self._creds)
            self._creds = None

    def _rows(self, query: str, argument: str) -> list[str]:
        if self._connection is not None:
            try:
                return self._asked(self._connection, query, argument)
            except psycopg.errors.QueryCanceled:
                # It is alive and slow: a new connection would be as slow.
                raise
            except psycopg.Error:
                self._drop_connection()
        self._connection = self._reconnected()
        try:
            return self._asked(self._connection, query, argument)
        except psycopg.Error:
            self._drop_connection()
            raise

    def _asked(self, connection: psycopg.Connection[Any], query: str, argument: str) -> list[str]:
        with _cut_after(connection, SECONDS):
            return [str(name) for (name,) in connection.execute(query, [argument])]

    def _reconnected(self) -> psycopg.Connection[Any]:
        """Connect as the user we have; where it is no longer let in, as a new one."""
        if self._creds is not None:
            try:
                return self._connect(self._creds, SECONDS)
            except psycopg.errors.ConnectionTimeout:
                raise
            except psycopg.Error:
                self._creds = None
        creds = self._vault.creds(self._target.observe)
        connection = self._connect(creds, SECONDS)
        self._creds = creds
        return connection

    def _connect(self, creds: Issued, seconds: int) -> psycopg.Connection[Any]:
        return psycopg.connect(
            self._target.postgres,
            user=creds.fields["username"].reveal(),
            password=creds.fields["password"].reveal(),
            autocommit=True,
            connect_timeout=SECONDS,
            application_name="justenough",
            options=f"-c statement_timeout={seconds}s",
        )

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.close()
        self._connection = None

    def _drop_creds(self, creds: Issued) -> None:
        """End a user of our own; where that fails, its short ttl does."""
        if creds.lease_id:
            with suppress(RetryLater, GiveUp):
                self._vault.revoke_lease(creds.lease_id)


def escaped(text: str) -> str:
    """Return a text that LIKE … ESCAPE '!' takes literally."""
    return re.sub(r"([!%_])", r"!\1", text)


def _tried(eye: _Eye, act: Callable[[_Eye], list[str]]) -> Look:
    try:
        return Look(found=tuple(FoundUser(eye.name, name) for name in act(eye)), looked=(eye.name,))
    except (RetryLater, GiveUp) as error:
        return Look(failures=(f"target {eye.name}: {error}",))
    except Exception as error:  # noqa: BLE001 - one target's trouble, of whatever kind, is its own
        # PostgreSQL's own words can quote values; the name of its error cannot.
        return Look(failures=(f"target {eye.name}: {type(error).__name__}",))


@contextmanager
def _cut_after(connection: psycopg.Connection[Any], seconds: float) -> Iterator[None]:
    """Cut the connection where its server stands still: a statement's own timeout is the server's to keep."""
    plug = socket.socket(fileno=os.dup(connection.fileno()))
    timer = threading.Timer(seconds + 0.5, _shut, [plug])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        plug.close()


def _shut(plug: socket.socket) -> None:
    with suppress(OSError):
        plug.shutdown(socket.SHUT_RDWR)
