"""The logins of worker and console (AppRole), and the identity tokens that people send to the console (OIDC)."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Generator, Iterator
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import read_json, write_private
from justenough.adapters.vault import VaultDenied
from justenough.adapters.vault.own_login import read_login
from justenough.domain.catalog.models import Catalog
from justenough.domain.core.vault_names import IDENTITY_ROLE
from justenough.domain.integrations.triggers import CONSOLE_ENTITY, Triggers
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.identities import provision_console_identity
from worker.provisioning.mounts import find_accessor
from worker.provisioning.policies import console_policy, worker_policy

APPROLE_SETTINGS = {
    "token_no_default_policy": True,
    "token_type": "service",
    "token_period": "1h",
    "token_ttl": "1h",
    "bind_secret_id": True,
}
OUR_LOGIN_FIELDS = frozenset({"role_id", "secret_id"})
"""The fields of a login file that setup writes, and may write again."""
OIDC_KEY_SETTINGS = {"algorithm": "EdDSA", "allowed_client_ids": [IDENTITY_ROLE], "rotation_period": "24h", "verification_ttl": "24h"}


def provision_worker(vault: AdminClient, settings: Settings, catalog: Catalog) -> Iterator[AppliedWrite]:
    """Write the worker's policy and, unless its login file names another method, its AppRole and that file."""
    policy = worker_policy(catalog, settings.installation, cidrs=settings.worker_cidrs, store_credentials=settings.database_credentials)
    yield vault.ensure("sys/policies/acl/je-worker", {"policy": policy})
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
    # Claims beside Vault's own: the person's groups and their login name.
    mount = next((accessor for name in settings.people_mounts if (accessor := find_accessor(vault, name))), None)
    name = f"identity.entity.aliases.{mount}.name" if mount else "identity.entity.name"
    template = f'{{"groups": {{{{identity.entity.groups.names}}}}, "name": {{{{{name}}}}}}}'
    yield vault.ensure("identity/oidc/key/je", OIDC_KEY_SETTINGS)
    yield vault.ensure(f"identity/oidc/role/{IDENTITY_ROLE}", {"key": "je", "client_id": IDENTITY_ROLE, "ttl": "15m", "template": template})
    path, issuer = "identity/oidc/config", settings.issuer.removesuffix(settings.issuer_path)
    current = str((vault.read(path) or {}).get("issuer") or "")
    if not settings.issuer.endswith(settings.issuer_path):
        remedy = f"Set JUSTENOUGH_VAULT_ISSUER to an address that ends in {settings.issuer_path}."
        raise SetupFailed(path, why=f"the issuer {settings.issuer!r} cannot be Vault's", remedy=remedy)
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
    current = {}
    with contextlib.suppress(OSError):
        current = read_json(file)
    if current.get("role_id") == role_id and current.get("secret_id"):
        with contextlib.suppress(SetupFailed):
            if vault.query(f"{role}/secret-id/lookup", {"secret_id": str(current["secret_id"])}):
                vault.make_private(file)
                yield AppliedWrite(str(file), WriteOutcome.UNCHANGED)
                return role_id
    if secret_id := vault.make_secret_id(role):
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, json.dumps({"role_id": role_id, "secret_id": secret_id}))
    yield AppliedWrite(str(file), WriteOutcome.CHANGED if current else WriteOutcome.CREATED, "a new secret id")
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
