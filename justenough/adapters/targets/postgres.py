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

from justenough.adapters.vault import IssuedSecret, Vault
from justenough.domain.catalog.models import Catalog, Target
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action

LOOK_TIMEOUT_S = 3
"""For a connect, a look, and the wait for another's look at the same target."""
END_TIMEOUT_S = 10
"""The function that ends users waits for their sessions to go."""
MAX_CONCURRENCY = 8
FIND_NAMES_SQL = """
    SELECT false, rolname FROM pg_catalog.pg_roles WHERE rolname LIKE %(users)s ESCAPE '!'
    UNION SELECT true, nspname FROM pg_catalog.pg_namespace WHERE nspname LIKE %(spaces)s ESCAPE '!'
    UNION SELECT true, rolname FROM pg_catalog.pg_roles WHERE rolname LIKE %(spaces)s ESCAPE '!'
    ORDER BY 1, 2
"""
"""Users, then spaces (true). A space is a schema, and the role that owns what is made in it; the one without the other is what is left of one."""
END_USERS_SQL = "SELECT je_end_users(%s)"
END_SPACE_SQL = "SELECT je_end_space(%s)"
JOB_ID_PATTERN = r"(?:-token-|\Aspace-)(j-{installation}-[0-9a-z]{{26}})(?:-|\Z)"

RequestedActions = AbstractSet[tuple[str, str]]
"""Resource and action of each request of a job."""
_Connection = psycopg.Connection[Any]
_Names = tuple[tuple[str, ...], tuple[str, ...]]
"""Of users, and of spaces."""


@dataclass(frozen=True, slots=True)
class TargetTrace:
    """A user or a space that is there: where (host:port/dbname) and its name."""

    target: str
    name: str


@dataclass(frozen=True, slots=True)
class TargetInspection:
    """What a look at some targets found, at which it looked, and why it could not look at others."""

    users: tuple[TargetTrace, ...] = ()
    spaces: tuple[TargetTrace, ...] = ()
    inspected: tuple[str, ...] = ()
    space_targets: tuple[str, ...] = ()
    """Those of them where what was asked for gives spaces."""
    failures: tuple[str, ...] = ()

    @property
    def traces(self) -> tuple[TargetTrace, ...]:
        """Everything that is there."""
        return (*self.users, *self.spaces)


class TargetDown(RetryLater):
    """A target does not answer, or not in time."""


class TargetInspector:
    """Every target of the catalog, each with one kept connection."""

    def __init__(self, vault: Vault, catalog: Callable[[], Catalog], *, installation: str) -> None:
        self._vault = vault
        self._catalog = catalog
        self._job = re.compile(JOB_ID_PATTERN.format(installation=re.escape(installation)))
        self._like = f"j-{escape_like(installation)}-%"
        self._observers: dict[Target, _TargetObserver] = {}
        self._lock = threading.Lock()

    def inspect(self, job: str, actions: RequestedActions | None = None) -> TargetInspection:
        """Look for users and spaces that carry a job's id: in the targets of these requests, or in all."""
        return self._for_each(actions, lambda eye: eye.find_names(*_name_patterns(job)))

    def traces_of(self, job: str) -> tuple[TargetTrace, ...]:
        """Return the users and spaces that carry a job's id, in targets that answer."""
        return self.inspect(job).traces

    def end_all_of(self, job: str, actions: RequestedActions | None = None) -> TargetInspection:
        """End every user that carries a job's id, then its spaces; return what is gone now."""
        return self._for_each(actions, lambda eye: eye.end(job))

    def job_ids(self) -> tuple[set[str], tuple[str, ...]]:
        """Return the ids of this installation's jobs that users and spaces in the targets carry, and why some could not be looked at."""
        look = self._for_each(None, lambda eye: eye.find_names(f"%-token-{self._like}", f"space-{self._like}"))
        return {matched[1] for one in look.traces if (matched := self._job.search(one.name))}, look.failures

    def is_searchable(self, resource: str, action: Action) -> bool:
        """Whether the action's users can be looked for."""
        definition = self._catalog().action(resource, action)
        return definition is not None and definition.target is not None

    def gives_space(self, resource: str, action: Action) -> bool:
        """Whether issuing an action gives its job a space in the target."""
        definition = self._catalog().action(resource, action)
        return definition is not None and definition.space

    def is_same_target(self, credential: CredentialHandle, other: CredentialHandle) -> bool:
        """Whether the users of two credentials are looked for in the same target."""
        first, second = (self._catalog().action(item.resource, item.action) for item in (credential, other))
        return first is not None and second is not None and first.target == second.target

    def close(self) -> None:
        """Close every connection and end the users that it was opened with."""
        with self._lock:
            eyes, self._observers = list(self._observers.values()), {}
        for eye in eyes:
            eye.close()

    def _for_each(self, actions: RequestedActions | None, act: Callable[[_TargetObserver], _Names]) -> TargetInspection:
        wanted = self._select_targets(actions)
        eyes = [self._observer_of(target) for target in wanted]
        roomy = {eye.name for eye, gives_space in zip(eyes, wanted.values(), strict=True) if gives_space}
        if len(eyes) < 2:
            results = [_inspect_one(eye, act) for eye in eyes]
        else:
            with ThreadPoolExecutor(min(MAX_CONCURRENCY, len(eyes))) as pool:
                results = list(pool.map(lambda eye: _inspect_one(eye, act), eyes))
        return TargetInspection(
            users=tuple(user for result in results for user in result.users),
            spaces=tuple(space for result in results for space in result.spaces),
            inspected=tuple(name for result in results for name in result.inspected),
            space_targets=tuple(name for result in results for name in result.inspected if name in roomy),
            failures=tuple(why for result in results for why in result.failures),
        )

    def _select_targets(self, actions: RequestedActions | None) -> dict[Target, bool]:
        """Return the targets to look at, and whether what was asked for gives spaces there."""
        resources = self._catalog().resources
        known = {(name, action.value) for name, resource in resources.items() for action in resource.actions}
        # What was asked for under an earlier catalog may be anywhere: then look everywhere.
        everywhere = actions is None or not actions <= known
        wanted: dict[Target, bool] = {}
        for name, resource in resources.items():
            for action, definition in resource.actions.items():
                if definition.target and (everywhere or (name, action.value) in (actions or ())):
                    wanted[definition.target] = wanted.get(definition.target, False) or definition.space
        return wanted

    def _observer_of(self, target: Target) -> _TargetObserver:
        with self._lock:
            if target not in self._observers:
                self._observers[target] = _TargetObserver(self._vault, target)
            return self._observers[target]


class _TargetObserver:
    """One target: a kept connection as its observer, for one caller at a time."""

    def __init__(self, vault: Vault, target: Target) -> None:
        self._vault = vault
        self._target = target
        self._lock = threading.Lock()
        self._creds: IssuedSecret | None = None
        self._connection: _Connection | None = None
        where = conninfo_to_dict(target.postgres)
        self.name = f"{where.get('host') or where.get('hostaddr') or 'local'}:{where.get('port') or 5432}/{where.get('dbname') or ''}"

    def find_names(self, users: str, spaces: str) -> _Names:
        """Return the names of users and of spaces that match; raise TargetDown or one of Vault's errors."""
        if not self._lock.acquire(timeout=LOOK_TIMEOUT_S):
            message = "another look at it does not come back"
            raise TargetDown(message)
        try:
            return self._query_or_reconnect(lambda connection: _find_names(connection, users, spaces))
        finally:
            self._lock.release()

    def end(self, job: str) -> _Names:
        """End the job's users and then its space as the reaper, whose own credential lives for this call only."""
        creds = self._vault.creds(self._target.end)
        try:
            with self._connect(creds, END_TIMEOUT_S) as connection, _cut_after(connection, END_TIMEOUT_S):
                users = _end_names(connection, END_USERS_SQL, job)
                # A target that gives no spaces need not have what ends them.
                _, left = _find_names(connection, *_name_patterns(job))
                return users, _end_names(connection, END_SPACE_SQL, job) if left else ()
        finally:
            self._drop_creds(creds)

    def close(self) -> None:
        """Close the connection and end its user."""
        with self._lock:
            self._drop_connection()
            if self._creds is not None:
                self._drop_creds(self._creds)
            self._creds = None

    def _query_or_reconnect(self, query: Callable[[_Connection], _Names]) -> _Names:
        if self._connection is not None:
            try:
                return self._run_query(self._connection, query)
            except psycopg.errors.QueryCanceled:
                # It is alive and slow: a new connection would be as slow.
                raise
            except psycopg.Error:
                self._drop_connection()
        self._connection = self._reconnect()
        try:
            return self._run_query(self._connection, query)
        except psycopg.Error:
            self._drop_connection()
            raise

    def _run_query(self, connection: _Connection, query: Callable[[_Connection], _Names]) -> _Names:
        with _cut_after(connection, LOOK_TIMEOUT_S):
            return query(connection)

    def _reconnect(self) -> _Connection:
        """Connect as the user we have; where it is no longer let in, as a new one."""
        if self._creds is not None:
            try:
                return self._connect(self._creds, LOOK_TIMEOUT_S)
            except psycopg.errors.ConnectionTimeout:
                raise
            except psycopg.Error:
                self._creds = None
        creds = self._vault.creds(self._target.observe)
        connection = self._connect(creds, LOOK_TIMEOUT_S)
        self._creds = creds
        return connection

    def _connect(self, creds: IssuedSecret, seconds: int) -> _Connection:
        return psycopg.connect(
            self._target.postgres,
            user=creds.fields["username"].reveal(),
            password=creds.fields["password"].reveal(),
            autocommit=True,
            connect_timeout=LOOK_TIMEOUT_S,
            application_name="justenough",
            options=f"-c statement_timeout={seconds}s",
        )

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.close()
        self._connection = None

    def _drop_creds(self, creds: IssuedSecret) -> None:
        """End a user of our own; where that fails, its short ttl does."""
        if creds.lease_id:
            with suppress(RetryLater, GiveUp):
                self._vault.revoke_lease(creds.lease_id)


def escape_like(text: str) -> str:
    """Return a text that LIKE … ESCAPE '!' takes literally."""
    return re.sub(r"([!%_])", r"!\1", text)


def _name_patterns(job: str) -> tuple[str, str]:
    """Return how a job's users and its spaces are called."""
    return f"%-token-{escape_like(job)}-%", f"space-{escape_like(job)}"


def _find_names(connection: _Connection, users: str, spaces: str) -> _Names:
    found = connection.execute(FIND_NAMES_SQL, {"users": users, "spaces": spaces}).fetchall()
    return tuple(str(name) for space, name in found if not space), tuple(str(name) for space, name in found if space)


def _end_names(connection: _Connection, query: str, job: str) -> tuple[str, ...]:
    return tuple(str(name) for (name,) in connection.execute(query, [job]))


def _inspect_one(observer: _TargetObserver, act: Callable[[_TargetObserver], _Names]) -> TargetInspection:
    try:
        users, spaces = ([TargetTrace(observer.name, name) for name in names] for names in act(observer))
        return TargetInspection(users=tuple(users), spaces=tuple(spaces), inspected=(observer.name,))
    except (RetryLater, GiveUp) as error:
        return TargetInspection(failures=(f"target {observer.name}: {error}",))
    except Exception as error:  # noqa: BLE001 - one target's trouble, of whatever kind, is its own
        # PostgreSQL's own words can quote values; the name of its error cannot.
        return TargetInspection(failures=(f"target {observer.name}: {type(error).__name__}",))


@contextmanager
def _cut_after(connection: _Connection, seconds: float) -> Iterator[None]:
    """Cut the connection where its server stands still: a statement's own timeout is the server's to keep."""
    plug = socket.socket(fileno=os.dup(connection.fileno()))
    timer = threading.Timer(seconds + 0.5, _shut_down, [plug])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        plug.close()


def _shut_down(plug: socket.socket) -> None:
    with suppress(OSError):
        plug.shutdown(socket.SHUT_RDWR)
