"""Vault for workers and consoles: tokens and credentials of jobs, their revocation and verification, people. Blocking: call it from threads.

Every method may raise VaultUnavailable, VaultSealed, VaultDenied or VaultRefused.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Generic, TypeVar

from justenough.adapters.vault.connection import VaultAnswer, safe_path
from justenough.adapters.vault.errors import CHECK_ADDRESS, UnknownHandle, VaultDenied, VaultRefused, VaultUnavailable
from justenough.adapters.vault.transit import TransitKeys, is_entity_id
from justenough.domain.approvals.tiers import Person
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.ids import JOB_ID, new_job_id
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import DATABASE_CREDS_PATH, JOB_ROLE_PREFIX, hard_end_of, job_role
from justenough.domain.integrations.triggers import CONSOLE_ENTITY

T = TypeVar("T")
GRANT_POLICY_GLOBS = ["je-grant-*"]
SCOPE_ALIAS_GLOBS = ["je-scope-*"]
DEFAULT_LEASE_TTL_S = 768 * 3600
"""Vault's own default, for roles and mounts that set no ttl."""
CACHE_TTL_S = 10.0
MAX_CACHED_VALUES = 4096
MAX_NAMED_MEMBERS = 50
"""Maximum number of a group's members whose names are read."""


@dataclass(frozen=True, slots=True)
class JobToken:
    """A job's token, created under its prefix."""

    accessor: str
    secret: Secret
    expires: datetime


@dataclass(frozen=True, slots=True)
class IssuedSecret:
    """An issued secret. `lease_id` and `ttl` (seconds) are None if the engine gives none."""

    lease_id: str | None
    ttl: int | None
    fields: Mapping[str, Secret]


@dataclass(frozen=True, slots=True)
class DatabaseRole:
    """The definition of a database role: how its engine creates users."""

    digest: str
    """Digest of everything that determines the users' names and where they are created."""
    ttl: int
    """Seconds that a user lives if nobody renews or revokes the lease."""


UNREADABLE = DatabaseRole(digest="", ttl=0)
"""Cached in place of a role that the worker may not read, or that Vault does not have."""


class TtlCache(Generic[T]):
    """Caches values that rarely change, up to MAX_CACHED_VALUES, for CACHE_TTL_S. Two threads may both read a missing value."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[float, T]] = {}

    def get(self, key: str, read: Callable[[], T]) -> T:
        """Return the cached value, or read it. Empty values are not cached, because they may exist a moment later."""
        at, value = self._values.get(key, (0.0, None))
        if value is not None and time.monotonic() - at < CACHE_TTL_S:
            return value
        fresh = read()
        if len(self._values) >= MAX_CACHED_VALUES:
            self._values.clear()
        if fresh:
            self._values[key] = (time.monotonic(), fresh)
        return fresh


class Vault(TransitKeys):
    """A client of one Vault. Thread-safe."""

    def __init__(
        self, address: str, *, namespace: str | None = None, cacert: Path | None = None, bound_cidrs: tuple[str, ...] = ()
    ) -> None:
        """With `bound_cidrs`, jobs' tokens work only from these networks. The worker's policy must name the same networks."""
        super().__init__(address, namespace=namespace, cacert=cacert)
        self._bound_cidrs = bound_cidrs
        self._group_names = TtlCache[str]()
        self._database_roles = TtlCache[DatabaseRole]()

    # One job.

    def open_prefix(self, job: str, max_ttl: int) -> None:
        """Write the job's token role. It limits each token to `max_ttl` seconds (rounded up) from its creation."""
        role: dict[str, Any] = {
            "allowed_policies_glob": GRANT_POLICY_GLOBS,
            "allowed_entity_aliases": SCOPE_ALIAS_GLOBS,
            "orphan": True,
            "token_no_default_policy": True,
            "token_type": "service",
            "token_explicit_max_ttl": hard_end_of(max_ttl),
        }
        if self._bound_cidrs:
            role["token_bound_cidrs"] = list(self._bound_cidrs)
        try:
            self.call_own("post", f"auth/token/roles/{_require_job_role(job)}", role)
        except VaultDenied as error:
            fix = "run `justenough vault setup` with the JUSTENOUGH_WORKER_CIDRS and the catalog of this worker"
            raise VaultDenied(f"{error}; {fix}") from error

    def close_prefix(self, job: str) -> None:
        """Delete the job's token role, so that no more tokens can be created under it. Idempotent."""
        self.call_own("delete", f"auth/token/roles/{_require_job_role(job)}")

    def require_job_rights(self, installation: str) -> None:
        """Raise VaultDenied unless our login may open and close jobs of this installation. It tries this by deleting the role of a job that
        does not exist.
        """
        try:
            self.close_prefix(new_job_id(installation, now=datetime.now(UTC)))
        except VaultDenied as error:
            fix = "give the login the policy je-worker, which `justenough vault apply` writes for one JUSTENOUGH_INSTALLATION"
            raise VaultDenied(f"Vault does not let this login manage jobs of the installation {installation} ({error}); {fix}") from error

    def create_token(self, job: str, *, policy: str, alias: str | None, ttl: int) -> JobToken:
        """Create a job's token with one grant policy and return it. With `alias`, it carries that data-scope identity."""
        # Vault puts the display name into the names of the users that it creates, which shows their job in the targets.
        body: dict[str, Any] = {"policies": [policy], "display_name": job, "ttl": f"{ttl}s", "renewable": False}
        if alias:
            body["entity_alias"] = alias
        began = self.clock.now()
        auth = (self.call_own("post", f"auth/token/create/{_require_job_role(job)}", body) or {}).get("auth") or {}
        if set(auth.get("token_policies") or ()) != {policy} or not auth.get("orphan"):
            raise VaultRefused(f"the token that Vault created for {job} is not an orphan token with {policy} as its only policy")
        expires = began + timedelta(seconds=auth["lease_duration"])
        return JobToken(accessor=auth["accessor"], secret=Secret(auth["client_token"]), expires=expires)

    def issue(self, token: JobToken, resolved: ResolvedIssue) -> IssuedSecret:
        return to_issued_secret(resolved.path, self.send(token, resolved))

    def send(self, token: JobToken, resolved: ResolvedIssue) -> VaultAnswer | None:
        """Send an issue request under a job's token and return Vault's answer, which may hold secrets."""
        verb, body = ("get", None) if resolved.method == "read" else ("put", dict(resolved.data))
        return self.call(self.adapter(token.secret), verb, safe_path(resolved.path), body)

    def renew_lease(self, lease_id: str, seconds: int) -> int:
        """Extend a lease to `seconds` from now, if its engine allows that much. Return the seconds that Vault granted."""
        answer = self.call_own("put", "sys/leases/renew", {"lease_id": safe_path(lease_id), "increment": seconds})
        return int((answer or {}).get("lease_duration") or 0)

    # Revocation and verification.

    def revoke_lease(self, lease_id: str) -> None:
        """Revoke a lease and wait until its engine has ended the credential. An unknown lease is already gone."""
        # Revoke by path, because the worker's policy allows only this. hvac's own method has no `sync`.
        with suppress(UnknownHandle):
            self.call_own("put", f"sys/leases/revoke/{safe_path(lease_id)}", {"sync": True})

    def revoke_prefix(self, job: str) -> None:
        """Revoke every token under the job's prefix.

        Call this after revoking the leases, because leases may outlive the tokens for a while.
        """
        self.call_own("put", f"sys/leases/revoke-prefix/auth/token/create/{_require_job_role(job)}", {"sync": True})

    def prefix_accessors(self, job: str) -> tuple[str, ...]:
        """Return one (hashed) name for each live token under the job's prefix."""
        return self._list(f"sys/leases/lookup/auth/token/create/{_require_job_role(job)}/")

    def is_lease_alive(self, lease_id: str) -> bool:
        """Whether Vault still knows a lease. An irrevocable lease counts as alive."""
        return self._is_known("put", "sys/leases/lookup", {"lease_id": lease_id})

    def is_accessor_alive(self, accessor: str) -> bool:
        return self._is_known("post", "auth/token/lookup-accessor", {"accessor": accessor})

    def job_prefixes(self, installation: str) -> tuple[str, ...]:
        """Return the ids of this installation's jobs that have a token role or live tokens."""
        names = (*self._list("auth/token/roles"), *self._list("sys/leases/lookup/auth/token/create/"))
        role = re.compile(rf"{JOB_ROLE_PREFIX}(j-{re.escape(installation)}-[^/]+)/?")
        return tuple(sorted({match[1] for name in names if (match := role.fullmatch(name)) and JOB_ID.fullmatch(match[1])}))

    # People.

    def person(self, entity_id: str, people_mounts: Iterable[str]) -> Person | None:
        """Return a person's current data in Vault, with their groups; None unless this is an enabled entity with a login on one of the mounts."""
        entity = self._read_entity(entity_id)
        # Vault returns a merged entity under its new id. The old id is then not a person, or quorum would count the person twice.
        if entity.get("id") != entity_id or entity.get("disabled"):
            return None
        logins = {str(alias.get("mount_path")).strip("/"): str(alias.get("name")) for alias in entity.get("aliases") or ()}
        names = [logins[mount] for each in people_mounts if (mount := f"auth/{each.strip('/')}") in logins]
        if not names:
            return None
        groups = frozenset(filter(None, map(self._group_name, entity.get("group_ids") or ())))
        return Person(id=entity_id, name=names[0], groups=groups)

    def person_named(self, name: str, *, like: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person with this login name on a people mount where the person `like` has a login too; None if there is none."""
        mounts = {f"auth/{each.strip('/')}" for each in people_mounts}
        for alias in self._read_entity(like).get("aliases") or ():
            if str(alias.get("mount_path")).strip("/") in mounts:
                login = {"alias_name": name, "alias_mount_accessor": alias.get("mount_accessor")}
                entity = self.read_data("put", "identity/lookup/entity", login)
                if person := self.person(str(entity.get("id")), people_mounts):
                    return person
        return None

    def members(self, group: str, people_mounts: Iterable[str]) -> tuple[Person, ...]:
        """Return a group's members, including those of nested groups, sorted by login name; one with the name "…" at the end if there are more
        than MAX_NAMED_MEMBERS.
        """
        mounts, people, groups = tuple(people_mounts), dict[str, None](), {group}
        outer = self.read_data("get", f"identity/group/name/{safe_path(group)}")
        # Vault finds a group whatever the case of its name, but `person` compares names, so these members are in no group of this name.
        waiting = [outer] if outer.get("name") == group else []
        while waiting:
            found = waiting.pop()
            people |= dict.fromkeys(map(str, found.get("member_entity_ids") or ()))
            inner = set(map(str, found.get("member_group_ids") or ())) - groups
            groups |= inner
            waiting += [self.read_data("get", f"identity/group/id/{safe_path(each)}") for each in sorted(inner)]
        named = [person for each in list(people)[:MAX_NAMED_MEMBERS] if (person := self.person(each, mounts))]
        more = [Person(id="", name="…")] if len(people) > MAX_NAMED_MEMBERS else []
        return *sorted(named, key=lambda person: person.name), *more

    def is_console(self, entity_id: str) -> bool:
        """Whether this is the console's entity, as `vault setup` created it, and not disabled."""
        entity = self._read_entity(entity_id)
        return (entity.get("id"), entity.get("name"), entity.get("disabled")) == (entity_id, CONSOLE_ENTITY, False)

    def require_audited_answer(self) -> None:
        """Make a request of our own that Vault answers only once it is in the audit log, unlike `sys/health`. Raises one of Vault's errors."""
        self.call_own("get", "auth/token/lookup-self")

    def creds(self, path: str) -> IssuedSecret:
        """Return credentials for the worker or console itself, read under its own token."""
        return to_issued_secret(path, self.call_own("get", safe_path(path)))

    def database_role(self, path: str, *, fresh: bool = False) -> DatabaseRole | None:
        """Return how a database engine creates the users of `<mount>/creds/<role>`. Cached for some seconds unless `fresh`.

        None if the path is not of this form, or the worker may not read the role and its connection.
        """
        match = DATABASE_CREDS_PATH.fullmatch(path)
        if match is None:
            return None
        mount, name = match.groups()

        def read() -> DatabaseRole:
            try:
                role = self.read_data("get", f"{mount}/roles/{safe_path(name)}")
                connection = self.read_data("get", f"{mount}/config/{safe_path(str(role.get('db_name') or '-'))}")
            except GiveUp:
                return UNREADABLE
            details = connection.get("connection_details")
            if not details:
                return UNREADABLE
            # Vault returns some unset values now as null, now as empty.
            decisive = {
                "role": {key: role.get(key) or None for key in ("db_name", "creation_statements", "credential_type", "credential_config")},
                "connection": {key: connection.get(key) or None for key in ("plugin_name", "plugin_version")},
                "details": {key: details.get(key) or None for key in ("connection_url", "username_template")},
            }
            return DatabaseRole(digest=digest_of(decisive), ttl=int(role.get("default_ttl") or 0) or DEFAULT_LEASE_TTL_S)

        role = read() if fresh else self._database_roles.get(path, read)
        return None if role is UNREADABLE else role

    def _group_name(self, group_id: str) -> str:
        path = f"identity/group/id/{safe_path(group_id)}"
        return self._group_names.get(group_id, lambda: str(self.read_data("get", path).get("name") or ""))

    def _read_entity(self, entity_id: str) -> VaultAnswer:
        return self.read_data("get", f"identity/entity/id/{entity_id}") if is_entity_id(entity_id) else {}

    def _is_known(self, method: str, path: str, handle: dict[str, str]) -> bool:
        try:
            answer = self.call_own(method, path, handle)
        except UnknownHandle:
            return False
        if answer is None:
            # Only Vault's answer that the handle is unknown counts as gone, not the 404 of a proxy in front of Vault.
            raise VaultUnavailable(f"{path}: Vault has no such path")
        return True

    def _list(self, path: str) -> tuple[str, ...]:
        answer = self.call_own("list", path)
        if answer is None:
            return ()
        keys = (answer.get("data") or {}).get("keys")
        if not isinstance(keys, list):
            raise VaultUnavailable(f"LIST {path}: the answer is not a list from Vault", remedy=CHECK_ADDRESS)
        return tuple(keys)


def _require_job_role(job: str) -> str:
    if not JOB_ID.fullmatch(job):
        raise VaultRefused(f"{job[:64]!r} is not a job id")
    return job_role(job)


def to_issued_secret(path: str, answer: VaultAnswer | None) -> IssuedSecret:
    """Return the secret in an answer of Vault. Raises VaultRefused if the answer has none."""
    response = answer or {}
    data = response.get("data")
    if not isinstance(data, dict):
        why = "an approver must authorize it in Vault itself" if response.get("wrap_info") else "Vault has nothing at this path"
        raise VaultRefused(f"{path}: {why}")
    lease = response.get("lease_id") or None
    ttl = int(response["lease_duration"]) if lease and response.get("lease_duration") else None
    # kv version 2 wraps the secret in {data, metadata}.
    inner = data["data"] if data.keys() == {"data", "metadata"} and isinstance(data["data"], dict) else data
    fields = {key: Secret(value if isinstance(value, str) else json.dumps(value)) for key, value in inner.items() if value is not None}
    return IssuedSecret(lease_id=lease, ttl=ttl, fields=fields)
