"""Creates and updates people and groups in Vault's identity store, from a file or a SCIM server. It sets no passwords.

It changes no entity that it did not create: each of its own entities has MARK in its metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import InvalidInput, Problem, raise_problems
from justenough.domain.core.secret import Secret
from worker.provisioning.admin_client import AdminClient, AppliedWrite, WriteOutcome
from worker.provisioning.mounts import require_namespace
from worker.provisioning.people_source import PersonEntry, ReadPeople
from worker.provisioning.plan import PlannedWrite, PlanningClient

MARK = {"made_by": "justenough-people"}
"""Metadata of the entities that we created."""
DISABLED_MARK = {"disabled_by": "justenough-people"}
"""Metadata of the entities that we disabled. We enable no others: an administrator may have disabled somebody in an emergency."""


def sync_people(settings: Settings, source: ReadPeople, *, admin_token: Secret, remove: bool) -> tuple[AppliedWrite, ...]:
    """Write these people into Vault, and return the outcome for each path. `remove`: also disable people who are not listed, and take them
    out of groups. Groups with an ambiguous name keep their members.

    Raises InvalidInput if these people cannot be written, for example if a conflicting identity is not ours: then only people who left have
    been disabled. Raises SetupFailed, VaultNotReady.
    """
    with AdminClient.of(settings, admin_token) as vault:
        writer = _PeopleWriter(vault, _Directory.read(vault, settings), source, remove)
        # First, so that a sync that is refused or interrupted has ended the access of those who left.
        left = tuple(writer.disable_others())
        problems = tuple(writer.directory.problems(vault, source.people))
        disabled = [step.path.rpartition("/")[2] for step in left if step.outcome is WriteOutcome.CHANGED]
        if problems and disabled:
            problems += (Problem("", f"nothing was written, except that these people, who left, are now disabled: {', '.join(disabled)}"),)
        raise_problems("people", problems)
        return (*left, *writer.write_people())


def plan_people(settings: Settings, source: ReadPeople, *, admin_token: Secret, remove: bool) -> tuple[PlannedWrite, ...]:
    """Return what `sync_people` would do for each path. Writes nothing. Raises as it does."""
    with AdminClient.of(settings, admin_token) as vault:
        directory = _Directory.read(vault, settings)
        raise_problems("people", directory.problems(vault, source.people))
    with _PeoplePlan.of(settings, admin_token, names=directory.names) as plan:
        writer = _PeopleWriter(plan, directory, source, remove)
        return tuple(plan.describe(step) for step in (*writer.disable_others(), *writer.write_people()))


class _PeoplePlan(PlanningClient):
    """Shows people's names in place of their ids."""

    def _later(self, path: str, field: str) -> str:
        return path.rpartition("/")[2] if field == "id" else super()._later(path, field)


@dataclass(frozen=True, slots=True)
class _Directory:
    """The mounts and identities in Vault before a sync."""

    accessors: Mapping[str, str]
    """By auth mount."""
    default_mounts: tuple[str, ...]
    """The mounts at which each person has a login under their name, unless the file gives another name."""
    entities: Mapping[str, dict[str, Any]]
    """All of Vault's entities, by casefolded name."""

    @classmethod
    def read(cls, vault: AdminClient, settings: Settings) -> _Directory:
        """Read Vault's mounts and entities. Raises InvalidInput if Vault has no mount of people, SetupFailed, VaultNotReady."""
        require_namespace(vault)
        accessors = {path.strip("/"): str(mount.get("accessor")) for path, mount in (vault.read("sys/auth") or {}).items()}
        if not any(mount.strip("/") in accessors for mount in settings.people_mounts):
            missing = ", ".join(f"{mount}/" for mount in settings.people_mounts)
            message = f"Vault has no auth method at {missing}: enable one first, or correct JUSTENOUGH_PEOPLE_MOUNTS"
            raise InvalidInput("people", (Problem("", message),))
        known = (*settings.people_mounts, settings.pages_mount, settings.pages_oidc_mount or "")
        mounts = tuple(dict.fromkeys(mount for each in known if (mount := each.strip("/")) in accessors))
        found = {name: vault.read(f"identity/entity/name/{name}") for name in vault.list("identity/entity/name")}
        return cls(accessors, mounts, {name.casefold(): entity for name, entity in found.items() if entity})

    @property
    def ours(self) -> dict[str, dict[str, Any]]:
        """The entities that people sync created, by name."""
        return {str(entity["name"]): entity for entity in self.entities.values() if is_ours(entity)}

    @property
    def names(self) -> dict[str, str]:
        """The names that a plan shows in place of ids and accessors."""
        people = {str(entity["id"]): str(entity["name"]) for entity in self.entities.values()}
        return people | {accessor: f"{mount}/" for mount, accessor in self.accessors.items()}

    def entity(self, name: str) -> dict[str, Any] | None:
        """Return Vault's entity of this name; None if there is none."""
        return self.entities.get(name.casefold())

    def logins(self, name: str, entry: PersonEntry) -> dict[str, str]:
        return dict.fromkeys(self.default_mounts, name) | {mount.strip("/"): login for mount, login in entry.logins.items()}

    def problems(self, vault: AdminClient, people: Mapping[str, PersonEntry]) -> Iterator[Problem]:
        """Yield everything that keeps these people from being written."""
        owners: dict[tuple[str, str], str] = {}
        for name, entry in people.items():
            if not entry.active:
                continue
            entity = self.entity(name)
            if entity and not is_ours(entity):
                yield Problem(name, f"Vault has an entity of this name that people sync did not create. {_hand_over(entity, name)}")
                continue
            for mount, login in self.logins(name, entry).items():
                if mount not in self.accessors:
                    yield Problem(f"{name}.logins.{mount}", "Vault has no such auth method: correct it, or enable it first")
                elif (other := owners.setdefault((mount, login.casefold()), name)) != name:
                    yield Problem(f"{name}.logins.{mount}", f"{login} is already the login of {other}")
                elif (owner := self._owner(vault, mount, login, entity)) and owner["id"] != (entity or {}).get("id"):
                    text = f"Vault knows the login {login} as {owner['name']}. {_hand_over(owner, name)}"
                    yield Problem(f"{name}.logins.{mount}", text)

    def _owner(self, vault: AdminClient, mount: str, login: str, entity: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
        """Return the entity that has this login; None if there is none yet."""
        if entity and login.casefold() == str((_alias(entity, self.accessors[mount]) or {}).get("name")).casefold():
            return entity
        return vault.query("identity/lookup/entity", {"alias_name": login, "alias_mount_accessor": self.accessors[mount]}) or None


def is_ours(entity: Mapping[str, Any]) -> bool:
    """Whether people sync created this entity, or an administrator handed it over (`_hand_over`)."""
    return MARK.items() <= (entity.get("metadata") or {}).items()


def _hand_over(entity: Mapping[str, Any], name: str) -> str:
    mark = " ".join(f"metadata={key}={value}" for key, value in MARK.items())
    return f"If it is this person, hand it over: bao write identity/entity/id/{entity['id']} name={name} {mark}"


def _alias(entity: Mapping[str, Any], accessor: str) -> Mapping[str, Any] | None:
    return next((alias for alias in entity.get("aliases") or () if alias.get("mount_accessor") == accessor), None)


@dataclass(frozen=True, slots=True)
class _PeopleWriter:
    """Writes the people of one sync with a client of Vault, or plans it with a PlanningClient."""

    vault: AdminClient
    directory: _Directory
    source: ReadPeople
    remove: bool

    @property
    def active(self) -> dict[str, PersonEntry]:
        return {name: entry for name, entry in self.source.people.items() if entry.active}

    def disable_others(self) -> Iterator[AppliedWrite]:
        """Disable people who are not active; with `remove`, also people whom people sync created and who are no longer listed.

        Somebody whose login belongs to another name now has probably not left: `problems` reports them.
        """
        directory, people = self.directory, self.source.people
        inactive = [entity for name, entry in people.items() if not entry.active and (entity := directory.entity(name))]
        listed = {name.casefold() for name in people}
        logins = {
            (directory.accessors.get(mount), login.casefold())
            for name, entry in self.active.items()
            for mount, login in directory.logins(name, entry).items()
        }
        absent = [
            entity
            for name, entity in directory.ours.items()
            if name.casefold() not in listed
            and logins.isdisjoint((alias["mount_accessor"], alias["name"].casefold()) for alias in entity.get("aliases") or ())
        ]
        for entity in (*inactive, *absent):
            path = f"identity/entity/name/{entity['name']}"
            if not is_ours(entity):
                yield AppliedWrite(path, WriteOutcome.KEPT, "not active, but people sync did not create this entity")
            elif entity.get("disabled"):
                yield AppliedWrite(path, WriteOutcome.UNCHANGED)
            elif entity in inactive or self.remove:
                yield self.vault.ensure(path, {"disabled": True, "metadata": {**entity["metadata"], **DISABLED_MARK}})
            else:
                yield AppliedWrite(path, WriteOutcome.KEPT, "not listed; --remove disables it")

    def write_people(self) -> Iterator[AppliedWrite]:
        """Write each active person's entity and logins, then the groups."""
        vault, ids = self.vault, dict[str, str]()
        for name, entry in self.active.items():
            path, entity = f"identity/entity/name/{name}", self.directory.entity(name)
            metadata: dict[str, str] = (entity or {}).get("metadata") or MARK
            if entity and entity.get("disabled") and not DISABLED_MARK.items() <= metadata.items():
                yield AppliedWrite(path, WriteOutcome.KEPT, f"disabled by somebody else: bao write {path} disabled=false enables it")
            else:
                # An administrator may have disabled somebody since the entities were read.
                state = {} if entity and not entity.get("disabled") else {"disabled": False}
                # If the mark stayed, we would enable a person whom an administrator disables later.
                yield vault.ensure(path, {**state, "metadata": {key: metadata[key] for key in metadata.keys() - DISABLED_MARK}})
            ids[name] = str((vault.read(path) or {}).get("id"))
            for mount, login in self.directory.logins(name, entry).items():
                yield self._ensure_login(name, ids[name], mount=mount, login=login)
        yield from self._ensure_groups(ids)

    def _ensure_login(self, name: str, entity_id: str, *, mount: str, login: str) -> AppliedWrite:
        path, accessor = f"identity/entity-alias/{mount}/{login}", self.directory.accessors[mount]
        current = _alias(self.directory.entity(name) or {}, accessor)
        if current and str(current["name"]).casefold() == login.casefold():
            return AppliedWrite(path, WriteOutcome.UNCHANGED)
        # Vault takes one alias per entity and mount, and changes it only by its id.
        where = f"identity/entity-alias/id/{current['id']}" if current else "identity/entity-alias"
        self.vault.write(where, {"name": login, "canonical_id": entity_id, "mount_accessor": accessor})
        if current:
            return AppliedWrite(path, WriteOutcome.CHANGED, f"the login of {name}, formerly {current['name']}")
        return AppliedWrite(path, WriteOutcome.CREATED, f"the login of {name}")

    def _ensure_groups(self, ids: Mapping[str, str]) -> Iterator[AppliedWrite]:
        """Give each group its members, except for the ambiguous ones. Members that people sync did not create stay; with `remove`, members that
        it created and that are no longer listed are removed. `ids`: entity ids by name.
        """
        vault, active, ours = self.vault, self.active, {str(entity["id"]): name for name, entity in self.directory.ours.items()}
        names = {group for entry in active.values() for group in entry.groups}
        groups = [(name, vault.read(f"identity/group/name/{name}")) for name in sorted(names)]
        others = sorted({group for entity in self.directory.ours.values() for group in entity.get("direct_group_ids") or ()})
        known = {str(group["id"]) for _, group in groups if group}
        found = [group for each in others if each not in known and (group := vault.read(f"identity/group/id/{each}"))]
        groups += [(str(group["name"]), group) for group in found]
        for name, group in groups:
            path = f"identity/group/name/{name}"
            if group and group["name"] != name:
                # Vault ignores case in a group's name. A write would rename the group, and its other members would become members of this one.
                rename = f"rename it (bao write identity/group/id/{group['id']} name={name})"
                yield AppliedWrite(path, WriteOutcome.KEPT, f"Vault has no group {name}, only {group['name']}: {rename}")
            elif name in self.source.ambiguous_groups:
                several = "several groups of the SCIM server have this name: its members stay as they are; rename all of them but one"
                yield AppliedWrite(path, WriteOutcome.KEPT, several)
            elif group and group.get("type") == "external":
                if name in names:
                    yield AppliedWrite(path, WriteOutcome.KEPT, "an external group: its members come from the auth method")
            else:
                wanted = {ids[person]: person for person, entry in active.items() if name in entry.groups}
                yield self._ensure_members(path, group, wanted, ours)

    def _ensure_members(
        self, path: str, group: Mapping[str, Any] | None, wanted: Mapping[str, str], ours: Mapping[str, str]
    ) -> AppliedWrite:
        """Give one group its members. `wanted`, `ours`: names by entity id of the people who belong to it, and of all whom people sync created."""
        current = set(map(str, (group or {}).get("member_entity_ids") or ()))
        surplus = current & ours.keys() - wanted.keys()
        members = (current | wanted.keys()) - (surplus if self.remove else set())
        note = ""
        if surplus and not self.remove:
            note = f"not listed: {', '.join(sorted(ours[member] for member in surplus))}; --remove takes them out"
        if group is not None and members == current:
            return AppliedWrite(path, WriteOutcome.KEPT if note else WriteOutcome.UNCHANGED, note)
        order = {**wanted, **ours}
        data = {"member_entity_ids": sorted(members, key=lambda member: order.get(member, member))}
        step = self.vault.ensure(path, data if group else {"type": "internal", **data})
        return AppliedWrite(step.path, step.outcome, note)
