"""Checks of people in Vault: tiers of approvals.yaml that nobody can approve, and logins that last too long. Reads only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from justenough.adapters.configuration.settings import Settings
from justenough.domain.approvals.tiers import APPROVALS_FILE, Tiers, read_tiers
from justenough.domain.core.errors import InvalidInput
from justenough.domain.core.secret import Secret
from worker.provisioning.admin_client import AdminClient, SetupFailed, VaultNotReady
from worker.stack.finding import DoctorFinding, first_of

MAX_LOGIN_LIFE_S = 24 * 3600
"""Maximum lifetime of a person's token. Vault's own default is 32 days."""
MAX_NAMES_SHOWN = 3
ROLES_BELOW = {"userpass": "users", "oidc": "role", "jwt": "role", "kubernetes": "role", "cert": "certs"}
"""By auth method, the path below its mount that has the token settings; other methods have them in their `config`, or nowhere."""
READ_REMEDY = (
    "Set VAULT_TOKEN to a token that may read identity/group/*, identity/entity/*, sys/auth/* and the people's auth mounts, "
    "and run doctor again."
)
PEOPLE_PAGE = "docs/how-to/people.md"


def people_findings(settings: Settings, *, token: Secret | None, folder: Path) -> Iterator[DoctorFinding]:
    """Check the people of the Vault in `settings` against the approvals.yaml of this folder. Needs an administrator's token."""
    if token is None:
        yield DoctorFinding("people", "warning", "approvers and the lifetimes of logins were not checked", READ_REMEDY)
        return
    tiers = None  # If they cannot be read, configuration_findings reports it.
    with contextlib.suppress(InvalidInput, OSError):
        tiers = read_tiers((folder / APPROVALS_FILE).read_bytes())
    try:
        with AdminClient.of(settings, token) as vault:
            if vault.namespace is not None and vault.read("sys/auth") is None:
                remedy = f"Correct VAULT_NAMESPACE, or create it: bao namespace create {vault.namespace}"
                yield DoctorFinding("vault namespace", "missing", f"Vault has no namespace {vault.namespace!r}", remedy)
                return
            if tiers is not None:
                yield from tier_findings(vault, tiers, settings.people_mounts)
            mounts = (*settings.people_mounts, settings.pages_password_mount, settings.pages_oidc_mount)
            yield from lifetime_findings(vault, tuple(dict.fromkeys(mount.strip("/") for mount in mounts if mount)))
    except SetupFailed as error:
        text = f"approvers and the lifetimes of logins were not all checked: {error.path} could not be read"
        yield DoctorFinding("people", "warning", text, READ_REMEDY)
    except (VaultNotReady, OSError):
        return  # vault_findings reports it.


def tier_findings(vault: AdminClient, tiers: Tiers, people_mounts: tuple[str, ...]) -> Iterator[DoctorFinding]:
    """Check whether each tier has as many people as its quorum needs. Approvers of a higher tier can approve lower ones too."""
    reader = _GroupReader(cache(vault.read), frozenset(f"auth/{mount.strip('/')}/" for mount in people_mounts))
    where = ", ".join(f"{mount.strip('/')}/" for mount in people_mounts)
    for number, tier in sorted(tiers.tiers.items()):
        names = tuple(dict.fromkeys(group for other, each in sorted(tiers.tiers.items()) if other >= number for group in each.approvers))
        groups = {name: reader.group(name) for name in names}
        people = frozenset[str]().union(*(group.people for group in groups.values() if group))
        count = "1 person" if len(people) == 1 else f"{len(people)} people"
        what, found = f"tier {number} ({tier.name})", f"{count} can approve, and its quorum is {tier.quorum}"
        if len(people) >= tier.quorum:
            yield DoctorFinding(what, "ok", found)
            continue
        external = tuple(name for name, group in groups.items() if group and group.is_external)
        reasons = [found if people else "nobody can approve"]
        reasons += [f"Vault has no group {name}{reader.hints.get(name, '')}" for name, group in groups.items() if group is None]
        unusable = frozenset[str]().union(*(group.others for group in groups.values() if group))
        if unusable:
            reasons.append(f"members that are disabled or have no login at {where}: {len(unusable)}")
        if external:
            reasons.append(f"members of external groups ({', '.join(external)}) are known only after they have logged in")
        remedy = f"Put people into {' or '.join(tier.approvers)}, or lower the quorum in {APPROVALS_FILE}: {PEOPLE_PAGE}"
        yield DoctorFinding(what, "warning" if external else "missing", "; ".join(reasons), remedy)
    roles = {"launch": tiers.roles.launch, "read": tiers.roles.read, "break_glass": tiers.roles.break_glass}
    unknown = [
        f"{name} ({role}){reader.hints.get(name, '')}" for role, names in roles.items() for name in names if reader.group(name) is None
    ]
    if unknown:
        text = f"Vault has no group {', '.join(unknown)}, so nobody has these roles of {APPROVALS_FILE}"
        yield DoctorFinding("roles", "warning", text, f"Create it, or correct its name: {PEOPLE_PAGE}")


def lifetime_findings(vault: AdminClient, mounts: tuple[str, ...]) -> Iterator[DoctorFinding]:
    """Check how long a login can live at each of these auth mounts."""
    enabled = vault.read("sys/auth") or {}
    for mount in mounts:
        what, kind = f"logins at {mount}/", str((enabled.get(f"{mount}/") or {}).get("type", ""))
        if not kind:
            yield DoctorFinding(what, "warning", "Vault has no auth method there", f"Enable one, or correct the setting: {PEOPLE_PAGE}")
            continue
        limit = int((vault.read(f"sys/auth/{mount}/tune") or {}).get("max_lease_ttl") or 0)
        lives = dict(_lifetimes(vault, mount, kind, limit))
        endless = sorted(name for name, life in lives.items() if life is None)
        longest = max((life for life in lives.values() if life is not None), default=0)
        late = sorted(name for name, life in lives.items() if life == longest)
        if endless:
            text = f"a login can be renewed without end ({first_of(endless, MAX_NAMES_SHOWN)})"
            yield DoctorFinding(what, "warning", text, "Set its token_period to 0, so that its token_max_ttl ends it.")
        if longest > MAX_LOGIN_LIFE_S:
            text = f"a login can live for {longest // 3600} h ({first_of(late, MAX_NAMES_SHOWN)})"
            yield DoctorFinding(what, "warning", text, f"bao auth tune -max-lease-ttl=8h {mount}/   # {PEOPLE_PAGE}#lifetimes")
        elif not endless:
            yield DoctorFinding(what, "ok", f"a login lives for {longest / 3600:g} h at most")


def _lifetimes(vault: AdminClient, mount: str, kind: str, limit: int) -> Iterator[tuple[str, int | None]]:
    """Yield the maximum lifetime in seconds, including renewals, of a login by each user or role of a mount; None for no limit."""
    if below := ROLES_BELOW.get(kind):
        roles = {name: vault.read(f"auth/{mount}/{below}/{name}") for name in vault.list(f"auth/{mount}/{below}")}
    else:
        roles = {"config": vault.read(f"auth/{mount}/config")}
    if not roles:
        yield "any", limit
    for name, role in roles.items():
        explicit, most, period = (int((role or {}).get(f"token_{key}") or 0) for key in ("explicit_max_ttl", "max_ttl", "period"))
        if period and not explicit:
            yield name, None
        else:
            yield name, min(filter(None, (explicit, most, limit)), default=0)


@dataclass(frozen=True, slots=True)
class _Members:
    """The members of a group, including members of nested groups."""

    people: frozenset[str]
    """Entities that workers and consoles accept as people."""
    others: frozenset[str]
    """Members that are disabled, or have no login at a people mount."""
    is_external: bool
    """Whether the group, or a group in it, gets its members from an auth method when they log in."""


@dataclass(frozen=True, slots=True)
class _GroupReader:
    """Groups of Vault and their members."""

    read: Callable[[str], Mapping[str, Any] | None]
    """Reads a path in Vault, each only once."""
    mount_paths: frozenset[str]
    hints: dict[str, str] = field(default_factory=dict)
    """For the end of the message that a group is missing, by name."""

    def group(self, name: str) -> _Members | None:
        """Return the members of a group; None if Vault has no such group."""
        group = self.read(f"identity/group/name/{name}")
        # To Vault, a name's case makes no difference here. Workers and consoles compare the name that the group has.
        if group and group["name"] != name:
            self.hints[name] = f", only {group['name']}: rename it (bao write identity/group/id/{group['id']} name={name})"
            return None
        return None if group is None else self._members(group)

    def _members(self, group: Mapping[str, Any]) -> _Members:
        seen: set[str] = set()
        waiting, entities, is_external = [group], set[str](), False
        while waiting:
            current = waiting.pop()
            seen.add(str(current.get("id")))
            is_external = is_external or current.get("type") == "external"
            entities.update(current.get("member_entity_ids") or ())
            inner = [each for each in current.get("member_group_ids") or () if each not in seen]
            waiting += [found for each in inner if (found := self.read(f"identity/group/id/{each}"))]
        people = frozenset(entity for entity in entities if self._is_person(entity))
        return _Members(people, frozenset(entities) - people, is_external)

    def _is_person(self, entity_id: str) -> bool:
        entity = self.read(f"identity/entity/id/{entity_id}") or {}
        mounts = {str(alias.get("mount_path")) for alias in entity.get("aliases") or ()}
        return not entity.get("disabled", True) and bool(mounts & self.mount_paths)
