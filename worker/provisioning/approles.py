"""How worker and console log in (AppRole), and the identity tokens that people show the console (OIDC)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from justenough.domain.catalog.models import Catalog
from justenough.domain.integrations.triggers import CONSOLE_ENTITY, Triggers
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.approle_files import read_approle, write_approle
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
AUDIENCE = "je-console"
OIDC_KEY_SETTINGS = {"algorithm": "EdDSA", "allowed_client_ids": [AUDIENCE], "rotation_period": "24h", "verification_ttl": "24h"}
ISSUER_PATH = "/v1/identity/oidc"


def provision_worker(vault: AdminClient, settings: Settings, catalog: Catalog) -> Iterator[AppliedWrite]:
    """Policy, AppRole and AppRole file of the worker."""
    yield vault.ensure("sys/policies/acl/je-worker", {"policy": worker_policy(catalog, settings.installation, cidrs=settings.worker_cidrs)})
    yield from _ensure_approle(vault, "je-worker", settings.worker_approle_file)


def provision_console(vault: AdminClient, settings: Settings, triggers: Triggers) -> Iterator[AppliedWrite]:
    """Policy, AppRole, AppRole file and identity of the console; of all secrets it reads those that the triggers name."""
    yield vault.ensure("sys/policies/acl/je-console", {"policy": console_policy(triggers.secret_paths)})
    yield from _ensure_approle(vault, CONSOLE_ENTITY, settings.console_approle_file)
    yield from provision_console_identity(vault, read_approle(settings.console_approle_file)["role_id"])


def provision_identity_tokens(vault: AdminClient, settings: Settings, *, embedded: bool) -> Iterator[AppliedWrite]:
    """Key, role and issuer of the identity tokens. A shared Vault's issuer is not ours to change once it is set."""
    yield vault.ensure("identity/oidc/key/je", OIDC_KEY_SETTINGS)
    yield vault.ensure(
        f"identity/oidc/role/{AUDIENCE}", {"key": "je", "client_id": AUDIENCE, "ttl": "15m", "template": _claims_template(vault, settings)}
    )
    path, issuer = "identity/oidc/config", settings.issuer.removesuffix(ISSUER_PATH)
    held = str((vault.read(path) or {}).get("issuer") or "")
    if not settings.issuer.endswith(ISSUER_PATH):
        remedy = f"Set JUSTENOUGH_VAULT_ISSUER to an address that ends in {ISSUER_PATH}."
        raise SetupFailed(path, why=f"the issuer {settings.issuer!r} cannot be Vault's", remedy=remedy)
    if held and held != issuer and not embedded:
        yield AppliedWrite(
            path, WriteOutcome.KEPT, f"its issuer is {held}: set JUSTENOUGH_VAULT_ISSUER={held}{ISSUER_PATH} for worker and console"
        )
        return
    yield vault.ensure(path, {"issuer": issuer})


def _claims_template(vault: AdminClient, settings: Settings) -> str:
    """The claims beside Vault's own: the person's groups and their login name."""
    mount = next((found for found in (find_accessor(vault, name) for name in settings.people_mounts) if found), None)
    name = f"identity.entity.aliases.{mount}.name" if mount else "identity.entity.name"
    return f'{{"groups": {{{{identity.entity.groups.names}}}}, "name": {{{{{name}}}}}}}'


def _ensure_approle(vault: AdminClient, name: str, file: Path) -> Iterator[AppliedWrite]:
    role = f"auth/approle/role/{name}"
    yield vault.ensure(role, {**APPROLE_SETTINGS, "token_policies": [name]})
    role_id = str((vault.read(f"{role}/role-id") or {}).get("role_id"))
    held = read_approle(file)
    if held.get("role_id") == role_id and held.get("secret_id") and _is_valid_secret_id(vault, role, held["secret_id"]):
        file.chmod(0o600)
        yield AppliedWrite(str(file), WriteOutcome.UNCHANGED)
        return
    made = vault.write(f"{role}/secret-id", {"metadata": json.dumps({"made_by": "justenough vault setup"})})
    write_approle(file, {"role_id": role_id, "secret_id": str(made["secret_id"])})
    yield AppliedWrite(str(file), WriteOutcome.CHANGED if held else WriteOutcome.CREATED, "a new secret id")


def _is_valid_secret_id(vault: AdminClient, role: str, secret_id: str) -> bool:
    try:
        return bool(vault.write(f"{role}/secret-id/lookup", {"secret_id": secret_id}))
    except SetupFailed:
        return False
