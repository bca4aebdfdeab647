"""Secrets engines, auth methods and the catalog's own writes. An existing mount is kept or refused, never remounted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from justenough.domain.catalog.models import VaultWrite
from justenough.domain.core.vault_names import HARD_END_HOURS
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.compare import is_same_value

LONGEST_LIFE_PATH = "sys/auth/token/tune"
NEEDED_LIFE_S = HARD_END_HOURS[-1] * 3600
"""The life of the longest job's tokens."""
SHARED_PATHS = {
    LONGEST_LIFE_PATH: "the longest life of every token",
    "identity/oidc/config": "the issuer of every identity token",
}
"""Paths that everybody in the Vault, or in the namespace, shares. They are changed only on explicit request."""
MOUNT_TABLES = ("sys/mounts", "sys/auth")


def mount_table(path: str) -> str | None:
    """Return the table of mounts in which a path is a mount; None for any other path. A mount's name may contain slashes."""
    return next((table for table in MOUNT_TABLES if path.startswith(f"{table}/") and not path.endswith("/tune")), None)


def require_namespace(vault: AdminClient) -> None:
    """Raise SetupFailed if Vault has no such namespace; otherwise everything in it would seem to be missing."""
    if vault.namespace is not None and vault.read("sys/mounts") is None:
        remedy = f"Correct VAULT_NAMESPACE, or create it: bao namespace create {vault.namespace}"
        raise SetupFailed("sys/mounts", why=f"Vault has no namespace {vault.namespace!r}", remedy=remedy)


def ensure_mounted(vault: AdminClient, path: str, data: Mapping[str, Any]) -> AppliedWrite:
    """Mount a secrets engine (`sys/mounts/NAME`) or enable an auth method (`sys/auth/NAME`) unless it is there already.

    Raises SetupFailed if something else is mounted there.
    """
    table = mount_table(path)
    assert table is not None
    current = (vault.read(table) or {}).get(f"{path.removeprefix(f'{table}/')}/")
    if current is None:
        vault.write(path, data)
        return AppliedWrite(path, WriteOutcome.CREATED)
    if any(not is_same_value(current.get(key) or {}, data[key]) for key in ("type", "options") if key in data):
        why = f"something else is mounted there already ({current.get('type')} {current.get('options') or ''})"
        raise SetupFailed(path, why=why, remedy="Nothing was changed there. Use another mount path in the catalog, or move that mount.")
    tuned = current.get("config") or {}
    other = [
        f"its {key} is {tuned.get(key)}, not {value} as in the catalog"
        for key, value in (data.get("config") or {}).items()
        if not is_same_value(tuned.get(key), value)
    ]
    if other:
        return AppliedWrite(path, WriteOutcome.KEPT, f"{'; '.join(other)}; write it to {path}/tune, or correct the catalog")
    return AppliedWrite(path, WriteOutcome.UNCHANGED)


def find_accessor(vault: AdminClient, name: str) -> str | None:
    """Return the accessor of an auth mount; None if there is no such mount."""
    mount = (vault.read("sys/auth") or {}).get(f"{name}/")
    return str(mount["accessor"]) if mount else None


def ensure_token_lifetime(vault: AdminClient) -> AppliedWrite:
    """Ensure that tokens may live as long as the longest job. A shorter maximum would end a job's access too early."""
    path = LONGEST_LIFE_PATH
    current = int((vault.read(path) or {}).get("max_lease_ttl", 0))
    if current >= NEEDED_LIFE_S:
        return AppliedWrite(path, WriteOutcome.UNCHANGED)
    vault.write(path, {"max_lease_ttl": f"{NEEDED_LIFE_S}s"})
    return AppliedWrite(path, WriteOutcome.CHANGED, f"max_lease_ttl {current} s → {NEEDED_LIFE_S} s")


def apply_catalog_writes(vault: AdminClient, writes: tuple[VaultWrite, ...]) -> Iterator[AppliedWrite]:
    """Apply the catalog's `provision`, in order. Raises SetupFailed, VaultNotReady."""
    for write in writes:
        if mount_table(write.path):
            yield ensure_mounted(vault, write.path, write.data)
        elif write.unless is not None:
            yield vault.write_unless(write.unless, write.path, write.data)
        elif write.once:
            yield vault.write_once(write.path, write.data)
        else:
            yield vault.ensure(write.path, write.data)
