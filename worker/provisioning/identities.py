"""Identities: one per data scope, the console's own, and the embedded stack's people with their logins and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from justenough.adapters.configuration.settings import Settings
from justenough.domain.catalog.loader import alias_of
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import signing_key
from justenough.domain.integrations.triggers import CONSOLE_ENTITY
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.mounts import ensure_mounted, find_accessor

APPROLE_MOUNT = "approle"
PERSON_TOKEN_SETTINGS = {
    "token_policies": ["je-person"],
    "token_no_default_policy": True,
    "token_type": "service",
    "token_ttl": "8h",
    "token_max_ttl": "8h",
}
PAGES_TOKEN_SETTINGS = {**PERSON_TOKEN_SETTINGS, "token_ttl": "45m"}
"""Token settings for logins to the pages. The console renews the token while the pages are used, so Vault ends an abandoned session."""
LOGIN_QUOTA = {"rate": 600, "interval": "1m"}
"""Maximum logins that Vault accepts from one address at one mount. All users of the pages share the console's address."""
MOUNTS_WITH_LOCKOUT = ("userpass", "ldap")
"""Auth methods with names that people can guess, at which Vault by default locks a name after five wrong passwords from any address."""


def provision_scope_identities(vault: AdminClient, catalog: Catalog) -> Iterator[AppliedWrite]:
    """Create an entity per scope, whose metadata fills the templates of the grant policies, with an alias for the jobs' tokens."""
    names = {alias_of(scope).casefold() for scope in catalog.scopes}
    for scope in catalog.scopes:
        yield from _ensure_entity(vault, alias_of(scope), {"metadata": dict(scope), "policies": [], "disabled": False}, mount="token")
    for name in vault.list("identity/entity/name"):
        if name.startswith("je-scope-") and name.casefold() not in names:
            note = "not a scope of the catalog; delete it if no other configuration uses it"
            yield AppliedWrite(f"identity/entity/name/{name}", WriteOutcome.KEPT, note)


def provision_people_logins(vault: AdminClient, mounts: tuple[str, ...], passwords: Mapping[str, Secret]) -> Iterator[AppliedWrite]:
    """Create users and entities on the first people mount. Without people, report which mounts are missing or lock names."""
    if passwords:
        yield from _ensure_users(vault, mounts[0], passwords, PERSON_TOKEN_SETTINGS)
    else:
        yield from _report_mounts(vault, mounts)


def provision_groups(vault: AdminClient, people: Mapping[str, tuple[str, ...]]) -> Iterator[AppliedWrite]:
    """Create the groups of these people, with exactly these members. An external group is not changed."""
    ids = {name: str((vault.read(f"identity/entity/name/{name}") or {}).get("id")) for name in people}
    for group in sorted({group for groups in people.values() for group in groups}):
        path, members = f"identity/group/name/{group}", sorted(ids[name] for name, groups in people.items() if group in groups)
        current = vault.read(path)
        if current is not None and current.get("type") == "external":
            yield AppliedWrite(path, WriteOutcome.KEPT, "an external group: its members come from the auth method")
        elif current is not None and sorted(current.get("member_entity_ids") or ()) == members:
            yield AppliedWrite(path, WriteOutcome.UNCHANGED)
        else:
            vault.write(path, {"member_entity_ids": members, "type": "internal"})
            yield AppliedWrite(path, WriteOutcome.CREATED if current is None else WriteOutcome.CHANGED)


def provision_page_logins(vault: AdminClient, settings: Settings, passwords: Mapping[str, Secret]) -> Iterator[AppliedWrite]:
    """Give people a login to the console's pages, at a separate mount. Without people, report if the mount is missing or locks names."""
    if not passwords:
        separate = settings.pages_password_mount if settings.pages_password_mount not in settings.people_mounts else None
        yield from _report_mounts(vault, (separate,) if separate else ())
    elif settings.pages_mount not in settings.people_mounts:
        yield from _ensure_users(vault, settings.pages_mount, passwords, PAGES_TOKEN_SETTINGS)


def provision_console_identity(vault: AdminClient, role_id: str | None) -> Iterator[AppliedWrite]:
    """Create the console's entity and the key that only the console may sign with. Orders of triggers name this entity and carry its signature.

    `role_id`: the role id of its AppRole; None if it logs in by another method, for which an administrator gives the entity an alias. If
    the console logged in before this setup, Vault created another entity for it. The alias moves to the new entity for the next login.
    """
    attributes = {"policies": [], "disabled": False}
    if role_id is None:
        yield vault.ensure(f"identity/entity/name/{CONSOLE_ENTITY}", attributes)
    else:
        yield from _ensure_entity(vault, CONSOLE_ENTITY, attributes, mount=APPROLE_MOUNT, alias=role_id)
    entity = str((vault.read(f"identity/entity/name/{CONSOLE_ENTITY}") or {}).get("id"))
    yield vault.ensure(f"transit/keys/{signing_key(entity)}", {"type": "ed25519"})


def _ensure_entity(
    vault: AdminClient, name: str, data: Mapping[str, Any], *, mount: str, alias: str | None = None
) -> Iterator[AppliedWrite]:
    """Create an entity with one alias on an auth mount; the alias defaults to the entity's name. Raises SetupFailed without the mount."""
    accessor = find_accessor(vault, mount)
    if accessor is None:
        remedy = "Enable it, then run `justenough vault setup` again."
        raise SetupFailed(f"sys/auth/{mount}", why="this auth mount is missing", remedy=remedy)
    alias, path, alias_path = alias or name, f"identity/entity/name/{name}", f"identity/entity-alias/{name}"
    yield vault.ensure(path, data)
    entity = vault.read(path) or {}
    names = [entry["name"].casefold() for entry in entity.get("aliases") or () if entry["mount_accessor"] == accessor]
    if names == [alias.casefold()]:
        yield AppliedWrite(alias_path, WriteOutcome.UNCHANGED)
        return
    vault.write("identity/entity-alias", {"name": alias, "canonical_id": entity.get("id"), "mount_accessor": accessor})
    yield AppliedWrite(alias_path, WriteOutcome.CREATED)


def _ensure_users(
    vault: AdminClient, mount: str, passwords: Mapping[str, Secret], token_settings: Mapping[str, Any]
) -> Iterator[AppliedWrite]:
    """Create userpass users with these passwords, and their entities. A login shows whether a user already has the password.

    These passwords are too long to guess. Counting failures by name would only let strangers lock people out, so count logins by address.
    """
    yield ensure_mounted(vault, f"sys/auth/{mount}", {"type": "userpass"})
    tune = f"sys/auth/{mount}/tune"
    if locks_names(vault, mount):
        vault.write(tune, {"user_lockout_config": {"lockout_disable": True}})
        yield AppliedWrite(tune, WriteOutcome.CHANGED, "wrong passwords no longer lock a name")
    else:
        yield AppliedWrite(tune, WriteOutcome.UNCHANGED)
    if vault.namespace is None:
        # Quotas belong to the administrators of the root namespace.
        yield vault.ensure(f"sys/quotas/rate-limit/je-login-{mount}", {"path": f"auth/{mount}/login/*", **LOGIN_QUOTA})
    for name, password in passwords.items():
        path = f"auth/{mount}/users/{name}"
        exists = vault.read(path) is not None
        token = vault.login(f"auth/{mount}/login/{name}", {"password": password.reveal()}) if exists else None
        if token is not None:
            vault.revoke_token(token)
            yield vault.ensure(path, token_settings)
        else:
            vault.write(path, {"password": password.reveal(), **token_settings})
            yield AppliedWrite(path, WriteOutcome.CHANGED if exists else WriteOutcome.CREATED, "password set" if exists else "")
        # An entity that exists keeps its state: an administrator may have disabled it.
        yield from _ensure_entity(vault, name, {}, mount=mount)


def locks_names(vault: AdminClient, mount: str) -> bool:
    """Whether Vault locks a name at this mount after wrong passwords. It does unless the mount is tuned not to."""
    return not (vault.read(f"sys/auth/{mount}/tune") or {}).get("user_lockout_disable")


def _report_mounts(vault: AdminClient, mounts: tuple[str, ...]) -> Iterator[AppliedWrite]:
    for mount in mounts:
        mounted = (vault.read("sys/auth") or {}).get(f"{mount}/")
        if mounted is None:
            note = f"nobody can log in there yet: enable an auth method at {mount}/ whose tokens have the policy je-person"
            yield AppliedWrite(f"sys/auth/{mount}", WriteOutcome.KEPT, note)
        elif mounted.get("type") in MOUNTS_WITH_LOCKOUT and locks_names(vault, mount):
            note = "anyone who reaches Vault can lock a person out with wrong passwords: see docs/how-to/lockout.md"
            yield AppliedWrite(f"sys/auth/{mount}/tune", WriteOutcome.KEPT, note)
