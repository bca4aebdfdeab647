"""What we ask of Vault: a job's prefix, tokens and credentials; ending them; looking; people and their keys. Blocking: call it from threads.

Every method may raise VaultUnavailable, VaultSealed, VaultDenied or VaultRefused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from justenough.adapters.vault.connection import VaultAnswer, safe_path
from justenough.adapters.vault.errors import UnknownHandle, VaultDenied, VaultRefused, VaultUnavailable
from justenough.adapters.vault.transit import TransitKeys, is_uuid
from justenough.adapters.vault.ttl_cache import TtlCache
from justenough.domain.approvals.tiers import Person
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.core.ids import JOB_ID
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import JOB_ROLE_PREFIX, hard_end_of, job_role
from justenough.domain.integrations.triggers import CONSOLE_ENTITY

GRANT_POLICY_GLOBS = ["je-grant-*"]
SCOPE_ALIAS_GLOBS = ["je-scope-*"]


@dataclass(frozen=True, slots=True)
class JobToken:
    """A token of a job's, under its prefix."""

    accessor: str
    secret: Secret
    expires: datetime


@dataclass(frozen=True, slots=True)
class IssuedSecret:
    """What Vault issued. `lease_id` and `ttl` (seconds) are None where the engine gives none."""

    lease_id: str | None
    ttl: int | None
    fields: Mapping[str, Secret]


class Vault(TransitKeys):
    """One Vault, as the parts of JustEnough use it. Thread-safe."""

    def __init__(
        self, address: str, *, namespace: str | None = None, cacert: Path | None = None, bound_cidrs: tuple[str, ...] = ()
    ) -> None:
        """Where `bound_cidrs` are given, jobs' tokens work only from there; the worker's policy then asks for exactly these."""
        super().__init__(address, namespace=namespace, cacert=cacert)
        self._bound_cidrs = bound_cidrs
        self._group_names = TtlCache[str]()

    # One job.

    def open_prefix(self, job: str, max_ttl: int) -> None:
        """Write the job's token role: no token made under it outlives `max_ttl` seconds (rounded up) after it was made."""
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
            message = f"{error}; run `justenough vault setup` with the JUSTENOUGH_WORKER_CIDRS and the catalog that this worker has"
            raise VaultDenied(message) from error

    def close_prefix(self, job: str) -> None:
        """Delete the job's token role: no token can be made under it any more. Again is fine."""
        self.call_own("delete", f"auth/token/roles/{_require_job_role(job)}")

    def create_token(self, job: str, *, policy: str, alias: str | None, ttl: int) -> JobToken:
        """Return a token of the job's for one grant policy, tied to one data-scope identity where there is an alias."""
        # Vault puts the display name into the names of the users that it makes: so targets tell whose they are.
        body: dict[str, Any] = {"policies": [policy], "display_name": job, "ttl": f"{ttl}s", "renewable": False}
        if alias:
            body["entity_alias"] = alias
        asked = datetime.now(UTC)
        auth = (self.call_own("post", f"auth/token/create/{_require_job_role(job)}", body) or {}).get("auth") or {}
        if set(auth.get("token_policies") or ()) != {policy} or not auth.get("orphan"):
            message = f"the token that Vault made for {job} is not the one that was asked for"
            raise VaultRefused(message)
        expires = asked + timedelta(seconds=auth["lease_duration"])
        return JobToken(accessor=auth["accessor"], secret=Secret(auth["client_token"]), expires=expires)

    def issue(self, token: JobToken, resolved: ResolvedIssue) -> IssuedSecret:
        """Return what Vault issues to a job's token."""
        return to_issued_secret(resolved.path, self.send(token, resolved))

    def send(self, token: JobToken, resolved: ResolvedIssue) -> VaultAnswer | None:
        """Return Vault's answer to what a job's token asks for; it may hold secrets."""
        verb, body = ("get", None) if resolved.method == "read" else ("put", dict(resolved.data))
        return self.call(self.adapter(token.secret), verb, safe_path(resolved.path), body)

    def renew_lease(self, lease_id: str, seconds: int) -> int:
        """Make a lease live for `seconds` from now, as far as its engine allows; return the seconds that it does live."""
        answer = self.call_own("put", "sys/leases/renew", {"lease_id": safe_path(lease_id), "increment": seconds})
        return int((answer or {}).get("lease_duration") or 0)

    # Ending.

    def revoke_lease(self, lease_id: str) -> None:
        """End a lease and wait until its engine has ended the credential; a lease that is unknown is already gone."""
        # By path, so that the worker's right can be by path; hvac's own method cannot say sync.
        with suppress(UnknownHandle):
            self.call_own("put", f"sys/leases/revoke/{safe_path(lease_id)}", {"sync": True})

    def revoke_prefix(self, job: str) -> None:
        """End every token under the job's prefix. Leases of theirs may live on for a while: end those first."""
        self.call_own("put", f"sys/leases/revoke-prefix/auth/token/create/{_require_job_role(job)}", {"sync": True})

    # Looking.

    def prefix_accessors(self, job: str) -> tuple[str, ...]:
        """Return what is listed under the job's prefix: one (hashed) name per live token."""
        return self._list(f"sys/leases/lookup/auth/token/create/{_require_job_role(job)}/")

    def is_lease_alive(self, lease_id: str) -> bool:
        """Whether Vault still knows a lease; one that it gave up on (irrevocable) counts as alive."""
        return self._is_known("put", "sys/leases/lookup", {"lease_id": lease_id})

    def is_accessor_alive(self, accessor: str) -> bool:
        """Whether a token lives."""
        return self._is_known("post", "auth/token/lookup-accessor", {"accessor": accessor})

    def job_prefixes(self, installation: str) -> tuple[str, ...]:
        """Return the ids of this installation's jobs that have a token role or live tokens."""
        names = (*self._list("auth/token/roles"), *self._list("sys/leases/lookup/auth/token/create/"))
        mine = re.compile(rf"{JOB_ROLE_PREFIX}(j-{re.escape(installation)}-[^/]+)/?")
        found = {matched[1] for name in names if (matched := mine.fullmatch(name))}
        return tuple(sorted(job for job in found if JOB_ID.fullmatch(job)))

    # People.

    def person(self, entity_id: str, people_mounts: Iterable[str]) -> Person | None:
        """Return a person as Vault knows them now; None for what is no enabled entity with a login on one of the mounts."""
        if not is_uuid(entity_id):
            return None
        entity = (self.call_own("get", f"identity/entity/id/{entity_id}") or {}).get("data") or {}
        # A merged entity answers under another id: the one asked for is then no person of its own, or quorum would count it twice.
        if entity.get("id") != entity_id or entity.get("disabled"):
            return None
        logins = {str(alias.get("mount_path")).strip("/"): str(alias.get("name")) for alias in entity.get("aliases") or ()}
        names = [logins[mount] for each in people_mounts if (mount := f"auth/{each.strip('/')}") in logins]
        if not names:
            return None
        groups = frozenset(name for group in entity.get("group_ids") or () if (name := self._group_name(group)))
        return Person(id=entity_id, name=names[0], groups=groups)

    def person_named(self, name: str, *, like: str, people_mounts: Iterable[str]) -> Person | None:
        """Return the person of this login name on a people mount where another person, `like`, has a login too."""
        entity = (self.call_own("get", f"identity/entity/id/{like}") or {}).get("data") or {} if is_uuid(like) else {}
        mounts = {f"auth/{each.strip('/')}" for each in people_mounts}
        for alias in entity.get("aliases") or ():
            if str(alias.get("mount_path")).strip("/") in mounts:
                asked = {"alias_name": name, "alias_mount_accessor": alias.get("mount_accessor")}
                found = (self.call_own("put", "identity/lookup/entity", asked) or {}).get("data") or {}
                if person := self.person(str(found.get("id")), people_mounts):
                    return person
        return None

    def is_console(self, entity_id: str) -> bool:
        """Whether this is the console's own entity, as `vault setup` made it, and not disabled."""
        entity = (self.call_own("get", f"identity/entity/id/{entity_id}") or {}).get("data") or {} if is_uuid(entity_id) else {}
        return (entity.get("id"), entity.get("name"), entity.get("disabled")) == (entity_id, CONSOLE_ENTITY, False)

    # What worker and console need for themselves.

    def creds(self, path: str) -> IssuedSecret:
        """Return credentials for our own use, read under our own token."""
        return to_issued_secret(path, self.call_own("get", safe_path(path)))

    def _group_name(self, group_id: str) -> str:
        def read() -> str:
            return str(((self.call_own("get", f"identity/group/id/{safe_path(group_id)}") or {}).get("data") or {}).get("name") or "")

        return self._group_names.get(group_id, read)

    def _is_known(self, method: str, path: str, handle: dict[str, str]) -> bool:
        try:
            answer = self.call_own(method, path, handle)
        except UnknownHandle:
            return False
        if answer is None:
            # Only Vault's own word that it knows no such handle counts as gone, not a 404 of whatever stands in front of it.
            message = f"{path}: there is no such path"
            raise VaultUnavailable(message)
        return True

    def _list(self, path: str) -> tuple[str, ...]:
        answer = self.call_own("list", path)
        return tuple(answer["data"]["keys"]) if answer else ()


def _require_job_role(job: str) -> str:
    if not JOB_ID.fullmatch(job):
        message = "not a job id"
        raise VaultRefused(message)
    return job_role(job)


def to_issued_secret(path: str, answer: VaultAnswer | None) -> IssuedSecret:
    """Return what an answer of Vault's gives. Raises VaultRefused where it gives nothing."""
    given = answer or {}
    data = given.get("data")
    if not isinstance(data, dict):
        message = f"{path}: an approver must release it in Vault itself" if given.get("wrap_info") else f"{path}: Vault has nothing there"
        raise VaultRefused(message)
    lease = given.get("lease_id") or None
    ttl = int(given["lease_duration"]) if lease and given.get("lease_duration") else None
    # kv version 2 wraps the secret in {data, metadata}.
    inner = data["data"] if data.keys() == {"data", "metadata"} and isinstance(data["data"], dict) else data
    fields = {key: Secret(value if isinstance(value, str) else json.dumps(value)) for key, value in inner.items() if value is not None}
    return IssuedSecret(lease_id=lease, ttl=ttl, fields=fields)
