"""Finds users and spaces in PostgreSQL targets, by the job's id in their names or by their exact names, and deletes them. Decides nothing.

If a target is down, only that target fails, and every call is bounded. Vault issues the inspector's own users under the worker's token. A user
that stops working is replaced.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict

from justenough.adapters.targets.postgres_locks import find_locks
from justenough.adapters.vault import IssuedSecret, Vault
from justenough.domain.catalog.models import ActionDef, Catalog, Target
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.credentials import CredentialHandle
from justenough.domain.jobs.states import Action

LOOK_TIMEOUT_S = 3
"""Limit for connecting, for inspecting, and for waiting until another inspection of the same target ends."""
END_TIMEOUT_S = 10
"""The function that deletes users waits for their sessions to end."""
MAX_CONCURRENCY = 8
MAX_OBSERVER_AGE_S = 5.0
"""An observer then connects again: the target's address may lead to another server by now, while the old one still answers."""
FIND_NAMES_SQL = """
    SELECT false, rolname FROM pg_catalog.pg_roles
    WHERE rolname = ANY (%(names)s) OR (rolname LIKE %(users)s ESCAPE '!' AND rolname NOT LIKE %(spaces)s ESCAPE '!')
    UNION SELECT true, nspname FROM pg_catalog.pg_namespace WHERE nspname LIKE %(spaces)s ESCAPE '!'
    UNION SELECT true, rolname FROM pg_catalog.pg_roles WHERE rolname LIKE %(spaces)s ESCAPE '!'
    ORDER BY 1, 2
"""
"""Selects users (false) and spaces (true). A space is a schema and the role that owns its objects; its remains may be one of the two."""
END_USERS_SQL = "SELECT public.je_end_users(%s::text)"
END_SPACE_SQL = "SELECT public.je_end_space(%s::text)"
JOB_ID_PATTERN = r"j-{installation}-[0-9a-z]{{26}}"

RequestedActions = AbstractSet[tuple[str, str]]
"""Resource and action of each request."""
_Connection = psycopg.Connection[Any]


@dataclass(frozen=True, slots=True)
class TargetTrace:
    """An existing user or space: its target (host:port/dbname) and its name."""

    target: str
    name: str


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
    spaces: tuple[TargetTrace, ...] = ()
    inspected: tuple[str, ...] = ()
    space_targets: tuple[str, ...] = ()
    """The inspected targets in which the requested actions create spaces."""
    locks: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()

    @property
    def traces(self) -> tuple[TargetTrace, ...]:
        return (*self.users, *self.spaces)


class TargetDown(RetryLater):
    """A target does not answer, or not in time."""


class TargetInspector:
    """Every target of the catalog, each with one connection that is used for some seconds."""

    def __init__(self, vault: Vault, catalog: Callable[[], Catalog], *, installation: str) -> None:
        self._vault = vault
        self._catalog = catalog
        self._job = re.compile(JOB_ID_PATTERN.format(installation=re.escape(installation)))
        self._like = f"j-{escape_like(installation)}-%"
        self._observers: dict[Target, _TargetObserver] = {}
        self._lock = threading.Lock()

    def inspect(self, job: str, actions: RequestedActions | None = None, *, names: Collection[str] = ()) -> TargetInspection:
        """Find the spaces and users whose names contain a job's id, and users with these exact names, in the targets of these requests or
        in all targets.
        """
        return self._for_each(actions, lambda observer: observer.find(*_name_patterns(job), names))

    def traces_of(self, job: str) -> tuple[TargetTrace, ...]:
        """Return the users and spaces whose names contain a job's id, in the targets that answer."""
        return self.inspect(job).traces

    def end_all_of(self, job: str, actions: RequestedActions | None = None) -> TargetInspection:
        """Delete every user whose name contains a job's id, then the job's spaces. Return the deleted users and spaces."""
        return self._for_each(actions, lambda observer: observer.end(job))

    def find_locks(self, names: Collection[str], actions: RequestedActions | None = None) -> tuple[str, ...]:
        """Return a sentence for each session that holds locks on these users and spaces, and for each target that could not be asked.

        They are in the syntax of `justenough.domain.ledger.overdue.end_session_advice`.
        """
        found = self._for_each(actions, lambda observer: observer.find_locks(names))
        unseen = (failure.removeprefix("target ").partition(": ") for failure in found.failures)
        return (*found.locks, *(f"lock in {target}: it could not be checked which session holds one ({why})" for target, _, why in unseen))

    def job_ids(self) -> tuple[set[str], TargetInspection]:
        """Return the ids of this installation's jobs in the names of users and spaces, and the inspection of all targets that found them."""
        inspection = self._for_each(None, lambda observer: observer.find(f"%{self._like}", f"space-{self._like}"))
        return {match[0] for trace in inspection.traces if (match := self._job.search(trace.name))}, inspection

    def has_target(self, resource: str, action: Action) -> bool:
        """Whether the action's users are in a target. True if no catalog is known, because they may be."""
        return self._may_be(resource, action, lambda definition: definition.target is not None)

    def gives_space(self, resource: str, action: Action) -> bool:
        """Whether issuing an action creates a space for its job in the target. True if no catalog is known, because it may."""
        return self._may_be(resource, action, lambda definition: definition.space)

    def is_same_target(self, credential: CredentialHandle, other: CredentialHandle) -> bool:
        """Whether the users of two credentials are known to be in the same target."""
        try:
            catalog = self._catalog()
        except RetryLater:
            return False
        first, second = (catalog.action(item.resource, item.action) for item in (credential, other))
        return first is not None and second is not None and first.target == second.target

    def close(self) -> None:
        """Close every connection and revoke the users of the connections."""
        with self._lock:
            observers, self._observers = list(self._observers.values()), {}
        for observer in observers:
            observer.close()

    def _may_be(self, resource: str, action: Action, has: Callable[[ActionDef], bool]) -> bool:
        try:
            definition = self._catalog().action(resource, action)
        except RetryLater:
            return True
        return definition is not None and has(definition)

    def _for_each(self, actions: RequestedActions | None, act: Callable[[_TargetObserver], TargetInspection]) -> TargetInspection:
        """Run `act` for each target of these requests (None: of the catalog), concurrently."""
        try:
            catalog = self._catalog()
        except RetryLater as error:
            return TargetInspection(failures=(f"targets: {error}",))
        definitions = {
            (name, action.value): item for name, resource in catalog.resources.items() for action, item in resource.actions.items()
        }
        if actions is not None and actions <= definitions.keys():
            definitions = {key: definitions[key] for key in definitions if key in actions}
        # Otherwise use every target: a request under an earlier catalog may have used any of them.
        targets: dict[Target, bool] = {}
        for definition in definitions.values():
            if definition.target:
                targets[definition.target] = targets.get(definition.target, False) or definition.space
        with self._lock:
            for target in targets.keys() - self._observers.keys():
                self._observers[target] = _TargetObserver(self._vault, target)
            observers = [self._observers[target] for target in targets]
        with_spaces = {observer.name for observer, has_space in zip(observers, targets.values(), strict=True) if has_space}
        if len(observers) < 2:
            results = [_inspect_one(observer, act) for observer in observers]
        else:
            with ThreadPoolExecutor(min(MAX_CONCURRENCY, len(observers))) as pool:
                results = list(pool.map(lambda observer: _inspect_one(observer, act), observers))
        return TargetInspection(
            users=tuple(user for result in results for user in result.users),
            spaces=tuple(space for result in results for space in result.spaces),
            inspected=tuple(name for result in results for name in result.inspected),
            space_targets=tuple(name for result in results for name in result.inspected if name in with_spaces),
            locks=tuple(lock for result in results for lock in result.locks),
            failures=tuple(why for result in results for why in result.failures),
        )


class _TargetObserver:
    """One target, with a connection as its observer, for one caller at a time."""

    def __init__(self, vault: Vault, target: Target) -> None:
        self._vault = vault
        self._target = target
        self._lock = threading.Lock()
        self._creds: IssuedSecret | None = None
        self._connection: _Connection | None = None
        self._connected_at = 0.0
        where = conninfo_to_dict(target.postgres)
        self.name = f"{where.get('host') or where.get('hostaddr') or 'local'}:{where.get('port') or 5432}/{where.get('dbname') or ''}"

    def find(self, users: str, spaces: str, names: Collection[str] = ()) -> TargetInspection:
        """Find the users and spaces whose names match these LIKE patterns, and users with these exact names. Raises like `_look`."""
        return self._look(lambda connection: self._find_names(connection, users, spaces, names))

    def find_locks(self, names: Collection[str]) -> TargetInspection:
        """Find the locks on users and spaces of these names. Raises like `_look`."""
        return self._look(lambda connection: TargetInspection(locks=find_locks(connection, self.name, names)))

    def _look(self, read: Callable[[_Connection], TargetInspection]) -> TargetInspection:
        """Return what `read` finds as the observer. Raises TargetDown, one of Vault's or psycopg's errors."""
        if not self._lock.acquire(timeout=LOOK_TIMEOUT_S):
            raise TargetDown("an earlier check of this target is still hanging")
        try:
            if time.monotonic() - self._connected_at > MAX_OBSERVER_AGE_S:
                self._drop_connection()
            if self._connection is not None:
                try:
                    with _cut_after(self._connection, LOOK_TIMEOUT_S):
                        return read(self._connection)
                except psycopg.errors.QueryCanceled:
                    # The target is slow, and a new connection would be as slow.
                    raise
                except psycopg.Error:
                    self._drop_connection()
            self._connected_at = time.monotonic()
            self._connection = self._reconnect()
            try:
                with _cut_after(self._connection, LOOK_TIMEOUT_S):
                    return read(self._connection)
            except psycopg.Error:
                self._drop_connection()
                raise
        finally:
            self._lock.release()

    def end(self, job: str) -> TargetInspection:
        """Delete the job's users and then its space, as a database user whose credential lives only for this call."""
        creds = self._vault.creds(self._target.end)
        try:
            with self._connect(creds, END_TIMEOUT_S) as connection, _cut_after(connection, END_TIMEOUT_S):
                users = self._end_names(connection, END_USERS_SQL, job)
                # Targets without spaces may lack the function that deletes them.
                spaces = self._find_names(connection, *_name_patterns(job)).spaces
                return TargetInspection(users, self._end_names(connection, END_SPACE_SQL, job) if spaces else ())
        finally:
            self._drop_creds(creds)

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
        creds = self._vault.creds(self._target.observe)
        try:
            connection = self._connect(creds, LOOK_TIMEOUT_S)
        except psycopg.Error:
            # Every check would leave another user in a target that has no free connection.
            self._drop_creds(creds)
            raise
        self._creds = creds
        return connection

    def _find_names(self, connection: _Connection, users: str, spaces: str, names: Collection[str] = ()) -> TargetInspection:
        found: dict[bool, list[TargetTrace]] = {False: [], True: []}
        for is_space, name in connection.execute(FIND_NAMES_SQL, {"users": users, "spaces": spaces, "names": list(names)}):
            found[is_space].append(TargetTrace(self.name, str(name)))
        return TargetInspection(tuple(found[False]), tuple(found[True]))

    def _end_names(self, connection: _Connection, query: str, job: str) -> tuple[TargetTrace, ...]:
        return tuple(TargetTrace(self.name, str(name)) for (name,) in connection.execute(query, [job]))

    def _connect(self, creds: IssuedSecret, seconds: int) -> _Connection:
        return psycopg.connect(
            self._target.postgres,
            user=creds.fields["username"].reveal(),
            password=creds.fields["password"].reveal(),
            autocommit=True,
            connect_timeout=LOOK_TIMEOUT_S,
            application_name="justenough",
            target_session_attrs="primary",  # A standby may show the users of a while ago, so finding none there proves nothing.
            # Whatever the database's default is: names that come as bytes equal no name of a user.
            client_encoding="utf8",
            # A function that somebody made in the target, with the name and arguments of a built-in one, must not run instead.
            options=f"-c statement_timeout={seconds}s -c search_path=pg_catalog,pg_temp",
        )

    def _drop_connection(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error, OSError):
                self._connection.close()
        self._connection = None

    def _drop_creds(self, creds: IssuedSecret) -> None:
        """Revoke a user of our own. If that fails, its short ttl ends it."""
        if creds.lease_id:
            with suppress(RetryLater, GiveUp):
                self._vault.revoke_lease(creds.lease_id)


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
        raise TargetDown(f"cannot log in to {target.postgres}: {why}") from None
    return None


def escape_like(text: str) -> str:
    """Return a text that LIKE … ESCAPE '!' matches literally."""
    return re.sub(r"([!%_])", r"!\1", text)


def _name_patterns(job: str) -> tuple[str, str]:
    """Return LIKE patterns for the names of a job's users and of its spaces."""
    return f"%{escape_like(job)}%", f"space-{escape_like(job)}"


def _inspect_one(observer: _TargetObserver, act: Callable[[_TargetObserver], TargetInspection]) -> TargetInspection:
    try:
        return replace(act(observer), inspected=(observer.name,))
    except Exception as error:  # noqa: BLE001 - a failure of one target must not fail the others
        why = str(error) if isinstance(error, RetryLater | GiveUp) else why_unreachable(error)
        return TargetInspection(failures=(f"target {observer.name}: {why}",))


def why_unreachable(error: Exception) -> str:
    """Return why a connection failed, in the words of the server or the system. For PostgreSQL's other messages, return only the type: they
    can quote values.
    """
    refusal = REFUSED_CONNECTION.search(str(error)) if isinstance(error, psycopg.OperationalError) else None
    return refusal[0].removeprefix("FATAL:").strip() if refusal else type(error).__name__


@contextmanager
def _cut_after(connection: _Connection, seconds: float) -> Iterator[None]:
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
