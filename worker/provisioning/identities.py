"""Identities and logins: one identity per data scope, the console's own, and the embedded stack's people with their groups; the logins of worker
and console (AppRole), and the identity tokens that people send to the console (OIDC).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json
from justenough.adapters.vault import VaultDenied
from justenough.adapters.vault.own_login import read_login
from justenough.domain.catalog.loader import alias_of
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import IDENTITY_ROLE, signing_key
from justenough.domain.integrations.triggers import CONSOLE_ENTITY, Triggers
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.mounts import ensure_mounted, find_accessor
from worker.provisioning.policies import LEASES_IN_POLICY, console_policy, lease_paths, worker_policy

APPROLE_MOUNT = "approle"
APPROLE_SETTINGS = {
    "token_no_default_policy": True,
    "token_type": "service",
    "token_period": "1h",
    "token_ttl": "1h",
    "bind_secret_id": True,
}
GROUP_MARK = {"made_by": "justenough-setup"}
"""Metadata of the groups that setup made for its people."""
OUR_LOGIN_FIELDS = frozenset({"role_id", "secret_id"})
"""The fields of a login file that setup writes, and may write again."""
OIDC_KEY_SETTINGS = {"algorithm": "EdDSA", "allowed_client_ids": [IDENTITY_ROLE], "rotation_period": "24h", "verification_ttl": "24h"}
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
NO_LOCKOUT = {"user_lockout_config": {"lockout_disable": True}}
MOUNTS_WITH_LOCKOUT = ("userpass", "ldap")
"""Auth methods with names that people can guess, at which Vault by default locks a name after five wrong passwords from any address."""


def provision_approle_mount(vault: AdminClient) -> Iterator[AppliedWrite]:
    """Enable AppRole, where wrong secret ids lock no role: nobody can guess one, and a lock keeps out workers and consoles with the right one.

    A mount that has roles is only reported, because others may use it.
    """
    path, tune = f"sys/auth/{APPROLE_MOUNT}", f"sys/auth/{APPROLE_MOUNT}/tune"
    mounted = ensure_mounted(vault, path, {"type": "approle"})
    yield mounted
    is_unused = mounted.outcome is WriteOutcome.CREATED
    # An administrator with je-admin.hcl of an earlier export may not read it.
    with contextlib.suppress(SetupFailed):
        if not is_unused and locks_names(vault, APPROLE_MOUNT):
            # Nobody can log in at a mount without roles: an earlier setup was interrupted right after it had made the mount.
            with contextlib.suppress(SetupFailed):
                is_unused = not vault.list(f"auth/{APPROLE_MOUNT}/role")
            if not is_unused:
                note = "five wrong secret ids lock workers or consoles out for 15 minutes: see docs/how-to/lockout.md"
                yield AppliedWrite(tune, WriteOutcome.KEPT, note)
    if is_unused:
        vault.write(tune, NO_LOCKOUT)
        yield AppliedWrite(tune, WriteOutcome.CHANGED, "wrong secret ids lock no role")


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
    """Create users and entities on the first people mount. If there are none to create, report which mounts are missing or lock names."""
    if passwords:
        yield from _ensure_users(vault, mounts[0], passwords, PERSON_TOKEN_SETTINGS)
    else:
        yield from _report_mounts(vault, mounts)


def provision_groups(vault: AdminClient, people: Mapping[str, tuple[str, ...]]) -> Iterator[AppliedWrite]:
    """Create the groups of these people, with exactly these members. Empty those that an earlier run made and that nobody is in any more,
    and leave them to others.

    An external group is not changed.
    """
    ids = {name: str((vault.read(f"identity/entity/name/{name}") or {}).get("id")) for name in people}
    listed = {group for groups in people.values() for group in groups}
    for group in sorted({*listed, *vault.list("identity/group/name")} if people else ()):
        path, members = f"identity/group/name/{group}", sorted(ids[name] for name, groups in people.items() if group in groups)
        current = vault.read(path)
        metadata = (current or {}).get("metadata") or {}
        is_marked = GROUP_MARK.items() <= metadata.items()
        if group not in listed and not is_marked:
            continue
        # A group is emptied once, and then not ours: whoever fills it again, such as people sync, keeps its members.
        metadata = {**metadata, **GROUP_MARK} if group in listed else {key: metadata[key] for key in metadata.keys() - GROUP_MARK}
        if current is not None and current.get("type") == "external":
            yield AppliedWrite(path, WriteOutcome.KEPT, "an external group: its members come from the auth method")
        elif is_marked and group in listed and sorted((current or {}).get("member_entity_ids") or ()) == members:
            yield AppliedWrite(path, WriteOutcome.UNCHANGED)
        else:
            vault.write(path, {"member_entity_ids": members, "type": "internal", "metadata": metadata})
            yield AppliedWrite(path, WriteOutcome.CREATED if current is None else WriteOutcome.CHANGED)


def provision_page_logins(vault: AdminClient, settings: Settings, passwords: Mapping[str, Secret]) -> Iterator[AppliedWrite]:
    """Give people a login to the console's pages, at a separate mount; if there are none to create, report if it is missing or locks names."""
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
    """Create an entity with one alias on an auth mount; the alias defaults to the entity's name."""
    accessor = find_accessor(vault, mount)
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
    mounted = ensure_mounted(vault, f"sys/auth/{mount}", {"type": "userpass"})
    yield mounted
    tune = f"sys/auth/{mount}/tune"
    # A new mount locks names; while a plan is made, it cannot be read.
    if mounted.outcome is WriteOutcome.CREATED or locks_names(vault, mount):
        vault.write(tune, NO_LOCKOUT)
        yield AppliedWrite(tune, WriteOutcome.CHANGED, "wrong passwords no longer lock a name")
    else:
        yield AppliedWrite(tune, WriteOutcome.UNCHANGED)
    if vault.namespace is None:
        # Quotas belong to the administrators of the root namespace.
        yield vault.ensure(f"sys/quotas/rate-limit/je-login-{mount}", {"path": f"auth/{mount}/login/*", **LOGIN_QUOTA})
    for name, password in passwords.items():
        path = f"auth/{mount}/users/{name}"
        # First, because Vault makes an entity of its own, which nothing deletes, for a user who logs in without one. An entity that exists
        # keeps its state: an administrator may have disabled it.
        yield from _ensure_entity(vault, name, {}, mount=mount)
        exists = vault.read(path) is not None
        # Whoever is disabled can log in with no password, so their login shows nothing.
        is_disabled = exists and bool((vault.read(f"identity/entity/name/{name}") or {}).get("disabled"))
        token = vault.login(f"auth/{mount}/login/{name}", {"password": password.reveal()}) if exists and not is_disabled else None
        if token is not None:
            vault.revoke_token(token)
        if token is not None or is_disabled:
            yield vault.ensure(path, token_settings)
        else:
            vault.write(path, {"password": password.reveal(), **token_settings})
            yield AppliedWrite(path, WriteOutcome.CHANGED if exists else WriteOutcome.CREATED, "password set" if exists else "")


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


def provision_worker(vault: AdminClient, settings: Settings, catalog: Catalog) -> Iterator[AppliedWrite]:
    """Write the worker's policy and, unless its login file names another method, its AppRole and that file.

    It keeps its rights to leases at paths that have left the catalog until none is left there: running jobs may hold them.
    """
    path, former = "sys/policies/acl/je-worker", list[str]()
    allowed = re.findall(LEASES_IN_POLICY, str((vault.read(path) or {}).get("policy", "")))
    for left in sorted(set(allowed).difference(lease_paths(catalog))):
        # If this administrator may not list leases, the rights stay.
        with contextlib.suppress(SetupFailed):
            if not vault.list(f"sys/leases/lookup/{left}/"):
                continue
        former.append(left)
    policy = worker_policy(
        catalog, settings.installation, cidrs=settings.worker_cidrs, store_credentials=settings.database_credentials, former_paths=former
    )
    written, note = vault.ensure(path, {"policy": policy}), ""
    if former:
        note = f"lets workers revoke what is left at {', '.join(former)}, which the catalog no longer names; apply again later"
        note += f". If others always have leases there, end these rights: bao delete {path}, then apply again"
    yield replace(written, note=note)
    yield from _ensure_approle(vault, "je-worker", settings.worker_approle_file)


def provision_console(vault: AdminClient, settings: Settings, triggers: Triggers) -> Iterator[AppliedWrite]:
    """Write the console's policy and identity and, unless its login file names another method, its AppRole and that file.

    It may read only those secrets that the triggers name.
    """
    yield vault.ensure(
        "sys/policies/acl/je-console", {"policy": console_policy(triggers.secret_paths, store_credentials=settings.database_credentials)}
    )
    role_id = yield from _ensure_approle(vault, CONSOLE_ENTITY, settings.console_approle_file)
    yield from provision_console_identity(vault, role_id)


def provision_identity_tokens(vault: AdminClient, settings: Settings, *, embedded: bool) -> Iterator[AppliedWrite]:
    """Write the key, role and issuer of the identity tokens. An issuer that is already set in a shared Vault is not changed."""
    # Claims in addition to Vault's own: the person's groups and their login name.
    mount = next((accessor for name in settings.people_mounts if (accessor := find_accessor(vault, name))), None)
    name = f"identity.entity.aliases.{mount}.name" if mount else "identity.entity.name"
    template = f'{{"groups": {{{{identity.entity.groups.names}}}}, "name": {{{{{name}}}}}}}'
    yield vault.ensure("identity/oidc/key/je", OIDC_KEY_SETTINGS)
    yield vault.ensure(f"identity/oidc/role/{IDENTITY_ROLE}", {"key": "je", "client_id": IDENTITY_ROLE, "ttl": "15m", "template": template})
    path, issuer = "identity/oidc/config", settings.issuer.removesuffix(settings.issuer_path)
    current = str((vault.read(path) or {}).get("issuer") or "")
    if not settings.issuer.endswith(settings.issuer_path):
        remedy = f"Set JUSTENOUGH_VAULT_ISSUER to an address that ends in {settings.issuer_path}."
        raise SetupFailed(path, why=f"Vault cannot be the issuer {settings.issuer!r}", remedy=remedy)
    if current and current != issuer and not embedded:
        note = f"its issuer is {current}: set JUSTENOUGH_VAULT_ISSUER={current}{settings.issuer_path} for worker and console"
        yield AppliedWrite(path, WriteOutcome.KEPT, note)
        return
    yield vault.ensure(path, {"issuer": issuer})


def _ensure_approle(vault: AdminClient, name: str, file: Path) -> Generator[AppliedWrite, None, str | None]:
    """Ensure an AppRole and its login file; return its role id, or None if the file names another method, which is kept."""
    if method := _other_method(file):
        alias = f", and make its login an alias of the entity {name}" if name == CONSOLE_ENTITY else ""
        note = f"it logs in by {method}: give its role at that mount the policy {name}{alias}"
        yield AppliedWrite(str(file), WriteOutcome.KEPT, note)
        return None
    role = f"auth/approle/role/{name}"
    yield vault.ensure(role, {**APPROLE_SETTINGS, "token_policies": [name]})
    role_id = str((vault.read(f"{role}/role-id") or {}).get("role_id"))
    # Only the console has an entity that knows its role's id.
    entity = vault.read(f"identity/entity/name/{name}") if name == CONSOLE_ENTITY else None
    accessor, aliases = find_accessor(vault, APPROLE_MOUNT), (entity or {}).get("aliases") or ()
    known = next((str(alias["name"]) for alias in aliases if alias["mount_accessor"] == accessor), role_id)
    if known.casefold() != role_id.casefold():
        # Somebody deleted the role. With another id it would log in as another entity, and Vault takes one alias per entity and mount.
        role_id = known
        vault.write(f"{role}/role-id", {"role_id": role_id})
        yield AppliedWrite(f"{role}/role-id", WriteOutcome.CHANGED, f"the id that the entity {name} knows")
    current = {}
    with contextlib.suppress(OSError):
        current = read_json(file)
    if current.get("role_id") == role_id and current.get("secret_id"):
        with contextlib.suppress(SetupFailed):
            if vault.query(f"{role}/secret-id/lookup", {"secret_id": str(current["secret_id"])}):
                vault.make_private(file)
                yield AppliedWrite(str(file), WriteOutcome.UNCHANGED)
                return role_id
    earlier: tuple[str, ...] = ()
    # An administrator with je-admin.hcl of an earlier export may not list them.
    with contextlib.suppress(SetupFailed):
        earlier = vault.list(f"{role}/secret-id")
    vault.write_login(role, file, role_id=role_id, current=current)
    note = f"; earlier ones that stay valid until you destroy them: {len(earlier)} (docs/how-to/rotation.md)" if earlier else ""
    yield AppliedWrite(str(file), WriteOutcome.CHANGED if current else WriteOutcome.CREATED, f"a new secret id{note}")
    return role_id


def _other_method(file: Path) -> str | None:
    """Return the login method of a login file that somebody else wrote; None if there is no such file. Raises SetupFailed for an invalid
    one.
    """
    with contextlib.suppress(OSError):
        if set(read_json(file)) <= OUR_LOGIN_FIELDS:
            return None
    try:
        return read_login(file).method
    except VaultDenied as error:
        remedy = "Correct it, or remove it to have one written that logs in by AppRole."
        raise SetupFailed(str(file), why=str(error), remedy=remedy) from None
