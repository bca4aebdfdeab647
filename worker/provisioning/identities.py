"""Identities: one per data scope, the console's own, and the embedded stack's people with their logins and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from justenough.adapters.configuration.settings import Settings
from justenough.domain.catalog.loader import alias_of
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.secret import Secret
from justenough.domain.integrations.triggers import CONSOLE_ENTITY
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.mounts import enable_auth_method, find_accessor

PERSON_TOKEN_SETTINGS = {
    "token_policies": ["je-person"],
    "token_no_default_policy": True,
    "token_type": "service",
    "token_ttl": "8h",
    "token_max_ttl": "8h",
}
PAGES_TOKEN_SETTINGS = {**PERSON_TOKEN_SETTINGS, "token_ttl": "45m"}
"""Of logins to the pages: renewed while somebody looks at them, so that Vault itself ends what a browser left behind."""


def provision_scope_identities(vault: AdminClient, catalog: Catalog) -> Iterator[AppliedWrite]:
    """Make an entity per scope whose metadata fills the grant policies' templates, with an alias that tokens can be tied to."""
    mount = _require_accessor(vault, "token")
    known = {alias_of(scope).casefold() for scope in catalog.scopes}
    for scope in catalog.scopes:
        name = alias_of(scope)
        yield from _ensure_entity(vault, name, {"metadata": dict(scope), "policies": [], "disabled": False}, mount=mount)
    for name in vault.list("identity/entity/name"):
        if name.startswith("je-scope-") and name.casefold() not in known:
            yield AppliedWrite(
                f"identity/entity/name/{name}", WriteOutcome.KEPT, "no scope of the catalog; delete it if no other configuration uses it"
            )


def provision_people_logins(
    vault: AdminClient, mounts: tuple[str, ...], people: Mapping[str, tuple[Secret, tuple[str, ...]]]
) -> Iterator[AppliedWrite]:
    """Make users, entities and groups on the first people mount. Without people, only say which mounts are missing."""
    if not people:
        yield from _report_missing_mounts(vault, mounts)
        return
    mount = mounts[0]
    yield enable_auth_method(vault, mount, {"type": "userpass"})
    found = _require_accessor(vault, mount)
    for name, (password, _) in people.items():
        yield from _ensure_user(vault, f"auth/{mount}/users/{name}", password, login=f"auth/{mount}/login/{name}")
        yield from _ensure_entity(vault, name, {"disabled": False}, mount=found)
    ids = {name: str((vault.read(f"identity/entity/name/{name}") or {}).get("id")) for name in people}
    for group in sorted({group for _, groups in people.values() for group in groups}):
        members = sorted(ids[name] for name, (_, groups) in people.items() if group in groups)
        yield _ensure_group(vault, f"identity/group/name/{group}", members)


def provision_page_logins(vault: AdminClient, settings: Settings, people: Mapping[str, Secret]) -> Iterator[AppliedWrite]:
    """Give people a login to the console's pages, at a mount of its own, and the entities that they have; without people, say where it is missing."""
    mount = settings.pages_mount
    if not people:
        yield from _report_missing_mounts(vault, (mount,))
        return
    if mount in settings.people_mounts:
        return
    yield enable_auth_method(vault, mount, {"type": "userpass"})
    found = _require_accessor(vault, mount)
    for name, password in people.items():
        yield from _ensure_user(
            vault, f"auth/{mount}/users/{name}", password, login=f"auth/{mount}/login/{name}", token=PAGES_TOKEN_SETTINGS
        )
        yield from _ensure_entity(vault, name, {"disabled": False}, mount=found)


def _report_missing_mounts(vault: AdminClient, mounts: tuple[str, ...]) -> Iterator[AppliedWrite]:
    for mount in mounts:
        if find_accessor(vault, mount) is None:
            note = f"nobody can log in there yet: enable an auth method at {mount}/ whose tokens carry je-person"
            yield AppliedWrite(f"sys/auth/{mount}", WriteOutcome.KEPT, note)


def provision_console_identity(vault: AdminClient, role_id: str) -> Iterator[AppliedWrite]:
    """Make the entity that the console's AppRole logs in as, and the key that only it may sign with: orders for triggers carry both.

    A login from before it was there made an entity of its own; the role's alias moves over, and the console's next login is the new one.
    """
    yield from _ensure_entity(
        vault, CONSOLE_ENTITY, {"policies": [], "disabled": False}, mount=_require_accessor(vault, "approle"), alias=role_id
    )
    entity = (vault.read(f"identity/entity/name/{CONSOLE_ENTITY}") or {}).get("id")
    yield vault.ensure(f"transit/keys/je-sign-{entity}", {"type": "ed25519"})


def _ensure_entity(
    vault: AdminClient, name: str, data: Mapping[str, Any], *, mount: str, alias: str | None = None
) -> Iterator[AppliedWrite]:
    """Make an entity with one alias on a mount, of its own name unless another is given."""
    alias = alias or name
    path = f"identity/entity/name/{name}"
    yield vault.ensure(path, data)
    entity = vault.read(path) or {}
    aliases = [one for one in entity.get("aliases") or () if one["mount_accessor"] == mount]
    where = f"identity/entity-alias/{name}"
    if [one["name"].casefold() for one in aliases] == [alias.casefold()]:
        yield AppliedWrite(where, WriteOutcome.UNCHANGED)
        return
    vault.write("identity/entity-alias", {"name": alias, "canonical_id": entity.get("id"), "mount_accessor": mount})
    yield AppliedWrite(where, WriteOutcome.CREATED)


def _ensure_user(
    vault: AdminClient, path: str, password: Secret, *, login: str, token: Mapping[str, Any] = PERSON_TOKEN_SETTINGS
) -> Iterator[AppliedWrite]:
    there = vault.read(path) is not None
    held = vault.login(login, {"password": password.reveal()}) if there else None
    if held is not None:
        vault.revoke_token(held)
        yield vault.ensure(path, token)
        return
    vault.write(path, {"password": password.reveal(), **token})
    yield AppliedWrite(path, WriteOutcome.CHANGED if there else WriteOutcome.CREATED, "password set" if there else "")


def _ensure_group(vault: AdminClient, path: str, members: list[str]) -> AppliedWrite:
    held = vault.read(path)
    if held is not None and held.get("type") == "external":
        return AppliedWrite(path, WriteOutcome.KEPT, "an external group: its members come from the auth method")
    if held is not None and sorted(held.get("member_entity_ids") or ()) == members:
        return AppliedWrite(path, WriteOutcome.UNCHANGED)
    vault.write(path, {"member_entity_ids": members, "type": "internal"})
    return AppliedWrite(path, WriteOutcome.CREATED if held is None else WriteOutcome.CHANGED)


def _require_accessor(vault: AdminClient, mount: str) -> str:
    found = find_accessor(vault, mount)
    if found is None:
        raise SetupFailed(
            f"sys/auth/{mount}", why="this auth mount is missing", remedy="Enable it, then run `justenough vault setup` again."
        )
    return found
