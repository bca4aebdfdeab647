"""Looks into targets for users and spaces that carry a job's id, and ends them there. Knows PostgreSQL; decides nothing.

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

from justenough.adapters.vault import Issued, Vault
from justenough.domain.catalog.loader import Catalog, Target
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.jobs.credentials import Credential
from justenough.domain.jobs.states import Action

SECONDS = 3
"""For a connect, a look, and the wait for another's look at the same target."""
END_SECONDS = 10
"""The function that ends users waits for their sessions to go."""
AT_ONCE = 8
ALIVE = """
    SELECT false, rolname FROM pg_catalog.pg_roles WHERE rolname LIKE %(users)s ESCAPE '!'
    UNION SELECT true, nspname FROM pg_catalog.pg_namespace WHERE nspname LIKE %(spaces)s ESCAPE '!'
    UNION SELECT true, rolname FROM pg_catalog.pg_roles WHERE rolname LIKE %(spaces)s ESCAPE '!'
    ORDER BY 1, 2
"""
"""Users, then spaces (true). A space is a schema, and the role that owns what is made in it; the one without the other is what is left of one."""
END_USERS = "SELECT je_end_users(%s)"
END_SPACE = "SELECT je_end_space(%s)"
JOB_IN_NAME = r"(?:-token-|\Aspace-)(j-{installation}-[0-9a-z]{{26}})(?:-|\Z)"

Asked = AbstractSet[tuple[str, str]]
"""Resource and action of each request of a job."""
_Connection = psycopg.Connection[Any]
_Names = tuple[tuple[str, ...], tuple[str, ...]]
"""Of users, and of spaces."""


@dataclass(frozen=True, slots=True)
class Found:
    """A user or a space that is there: where (host:port/dbname) and its name."""

    target: str
    name: str


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at some targets found, at which it looked, and why it could not look at others."""

    users: tuple[Found, ...] = ()
    spaces: tuple[Found, ...] = ()
    looked: tuple[str, ...] = ()
    roomy: tuple[str, ...] = ()
    """Those of them where what was asked for gives spaces."""
    failures: tuple[str, ...] = ()

    @property
    def found(self) -> tuple[Found, ...]:
        """Everything that is there."""
        return (*self.users, *self.spaces)


class TargetDown(RetryLater):
    """A target does not answer, or not in time."""


class Targets:
    """Every target of the catalog, each with one kept connection."""

    def __init__(self, vault: Vault, catalog: Callable[[], Catalog], *, installation: str) -> None:
        self._vault = vault
        self._catalog = catalog
        self._job = re.compile(JOB_IN_NAME.format(installation=re.escape(installation)))
        self._like = f"j-{escaped(installation)}-%"
        self._eyes: dict[Target, _Eye] = {}
        self._lock = threading.Lock()

    def look(self, job: str, asked: Asked | None = None) -> Look:
        """Look for users and spaces that carry a job's id: in the targets of these requests, or in all."""
        return self._each(asked, lambda eye: eye.seen(*_patterns(job)))

    def traces_of(self, job: str) -> tuple[Found, ...]:
        """Return the users and spaces that carry a job's id, in targets that answer."""
        return self.look(job).found

    def end_all_of(self, job: str, asked: Asked | None = None) -> Look:
        """End every user that carries a job's id, then its spaces; return what is gone now."""
        return self._each(asked, lambda eye: eye.end(job))

    def jobs(self) -> tuple[set[str], tuple[str, ...]]:
        """Return the ids of this installation's jobs that users and spaces in the targets carry, and why some could not be looked at."""
        look = self._each(None, lambda eye: eye.seen(f"%-token-{self._like}", f"space-{self._like}"))
        return {matched[1] for one in look.found if (matched := self._job.search(one.name))}, look.failures

    def searchable(self, resource: str, action: Action) -> bool:
        """Whether the action's users can be looked for."""
        definition = self._catalog().action(resource, action)
        return definition is not None and definition.target is not None

    def gives_space(self, resource: str, action: Action) -> bool:
        """Whether issuing an action gives its job a space in the target."""
        definition = self._catalog().action(resource, action)
        return definition is not None and definition.space

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

    def _each(self, asked: Asked | None, act: Callable[[_Eye], _Names]) -> Look:
        wanted = self._wanted(asked)
        eyes = [self._eye(target) for target in wanted]
        roomy = {eye.name for eye, gives_space in zip(eyes, wanted.values(), strict=True) if gives_space}
        if len(eyes) < 2:
            results = [_tried(eye, act) for eye in eyes]
        else:
            with ThreadPoolExecutor(min(AT_ONCE, len(eyes))) as pool:
                results = list(pool.map(lambda eye: _tried(eye, act), eyes))
        return Look(
            users=tuple(user for result in results for user in result.users),
            spaces=tuple(space for result in results for space in result.spaces),
            looked=tuple(name for result in results for name in result.looked),
            roomy=tuple(name for result in results for name in result.looked if name in roomy),
            failures=tuple(why for result in results for why in result.failures),
        )

    def _wanted(self, asked: Asked | None) -> dict[Target, bool]:
        """Return the targets to look at, and whether what was asked for gives spaces there."""
        resources = self._catalog().resources
        known = {(name, action.value) for name, resource in resources.items() for action in resource.actions}
        # What was asked for under an earlier catalog may be anywhere: then look everywhere.
        everywhere = asked is None or not asked <= known
        wanted: dict[Target, bool] = {}
        for name, resource in resources.items():
            for action, definition in resource.actions.items():
                if definition.target and (everywhere or (name, action.value) in (asked or ())):
                    wanted[definition.target] = wanted.get(definition.target, False) or definition.space
        return wanted

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
        self._connection: _Connection | None = None
        where = conninfo_to_dict(target.postgres)
        self.name = f"{where.get('host') or where.get('hostaddr') or 'local'}:{where.get('port') or 5432}/{where.get('dbname') or ''}"

    def seen(self, users: str, spaces: str) -> _Names:
        """Return the names of users and of spaces that match; raise TargetDown or one of Vault's errors."""
        if not self._lock.acquire(timeout=SECONDS):
            message = "another look at it does not come back"
            raise TargetDown(message)
        try:
            return self._told(lambda connection: _alive(connection, users, spaces))
        finally:
            self._lock.release()

    def end(self, job: str) -> _Names:
        """End the job's users and then its space as the reaper, whose own credential lives for this call only."""
        creds = self._vault.creds(self._target.end)
        try:
            with self._connect(creds, END_SECONDS) as connection, _cut_after(connection, END_SECONDS):
                users = _ended(connection, END_USERS, job)
                # A target that gives no spaces need not have what ends them.
                _, left = _alive(connection, *_patterns(job))
                return users, _ended(connection, END_SPACE, job) if left else ()
        finally:
            self._drop_creds(creds)

    def close(self) -> None:
        """Close the connection and end its user."""
        with self._lock:
            self._drop_connection()
            if self._creds is not None:
                self._drop_creds(self._creds)
            self._creds = None

    def _told(self, ask: Callable[[_Connection], _Names]) -> _Names:
        if self._connection is not None:
            try:
                return self._asked(self._connection, ask)
            except psycopg.errors.QueryCanceled:
                # It is alive and slow: a new connection would be as slow.
                raise
            except psycopg.Error:
                self._drop_connection()
        self._connection = self._reconnected()
        try:
            return self._asked(self._connection, ask)
        except psycopg.Error:
            self._drop_connection()
            raise

    def _asked(self, connection: _Connection, ask: Callable[[_Connection], _Names]) -> _Names:
        with _cut_after(connection, SECONDS):
            return ask(connection)

    def _reconnected(self) -> _Connection:
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

    def _connect(self, creds: Issued, seconds: int) -> _Connection:
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


def _patterns(job: str) -> tuple[str, str]:
    """Return how a job's users and its spaces are called."""
    return f"%-token-{escaped(job)}-%", f"space-{escaped(job)}"


def _alive(connection: _Connection, users: str, spaces: str) -> _Names:
    found = connection.execute(ALIVE, {"users": users, "spaces": spaces}).fetchall()
    return tuple(str(name) for space, name in found if not space), tuple(str(name) for space, name in found if space)


def _ended(connection: _Connection, query: str, job: str) -> tuple[str, ...]:
    return tuple(str(name) for (name,) in connection.execute(query, [job]))


def _tried(eye: _Eye, act: Callable[[_Eye], _Names]) -> Look:
    try:
        users, spaces = ([Found(eye.name, name) for name in names] for names in act(eye))
        return Look(users=tuple(users), spaces=tuple(spaces), looked=(eye.name,))
    except (RetryLater, GiveUp) as error:
        return Look(failures=(f"target {eye.name}: {error}",))
    except Exception as error:  # noqa: BLE001 - one target's trouble, of whatever kind, is its own
        # PostgreSQL's own words can quote values; the name of its error cannot.
        return Look(failures=(f"target {eye.name}: {type(error).__name__}",))


@contextmanager
def _cut_after(connection: _Connection, seconds: float) -> Iterator[None]:
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
