"""Engines, auth methods and the catalog's own writes. What is mounted already is kept as it is, or refused; never remounted."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Iterator, Mapping
from typing import Any

from justenough.domain.catalog.models import VaultWrite
from justenough.domain.core.vault_names import HARD_END_HOURS
from worker.provisioning.admin_client import AdminClient, AppliedWrite, SetupFailed, WriteOutcome
from worker.provisioning.compare import is_same_value


def mount_engine(vault: AdminClient, name: str, data: Mapping[str, Any]) -> AppliedWrite:
    """Mount a secrets engine unless it is there."""
    return _ensure_mounted(vault, "sys/mounts", name, data)


def enable_auth_method(vault: AdminClient, name: str, data: Mapping[str, Any]) -> AppliedWrite:
    """Enable an auth method unless it is there."""
    return _ensure_mounted(vault, "sys/auth", name, data)


def find_accessor(vault: AdminClient, name: str) -> str | None:
    """Return the accessor of an auth mount, None where there is none."""
    found = (vault.read("sys/auth") or {}).get(f"{name}/")
    return str(found["accessor"]) if found else None


def ensure_token_lifetime(vault: AdminClient) -> AppliedWrite:
    """See that tokens may live as long as the longest job: a shorter maximum would end a job's access before its time."""
    path, needed = "sys/auth/token/tune", HARD_END_HOURS[-1] * 3600
    held = int((vault.read(path) or {}).get("max_lease_ttl", 0))
    if held >= needed:
        return AppliedWrite(path, WriteOutcome.UNCHANGED)
    vault.write(path, {"max_lease_ttl": f"{needed}s"})
    return AppliedWrite(path, WriteOutcome.CHANGED, f"max_lease_ttl {held} s → {needed} s")


def apply_catalog_writes(vault: AdminClient, writes: tuple[VaultWrite, ...]) -> Iterator[AppliedWrite]:
    """Apply the catalog's `provision`, in order."""
    for write in writes:
        where, _, name = write.path.rpartition("/")
        if where in {"sys/mounts", "sys/auth"}:
            yield _ensure_mounted(vault, where, name, write.data)
        elif write.once and vault.read(write.path) is not None:
            yield AppliedWrite(write.path, WriteOutcome.UNCHANGED)
        elif write.unless is not None:
            yield _write_once(vault, write, write.unless)
        else:
            yield vault.ensure(write.path, _fill_random(write.data) if write.once else write.data)


def _write_once(vault: AdminClient, write: VaultWrite, unless: str) -> AppliedWrite:
    if vault.list(unless):
        return AppliedWrite(write.path, WriteOutcome.UNCHANGED)
    vault.write(write.path, write.data)
    return AppliedWrite(write.path, WriteOutcome.CREATED)


def _ensure_mounted(vault: AdminClient, where: str, name: str, data: Mapping[str, Any]) -> AppliedWrite:
    path = f"{where}/{name}"
    held = (vault.read(where) or {}).get(f"{name}/")
    if held is None:
        vault.write(path, data)
        return AppliedWrite(path, WriteOutcome.CREATED)
    wanted = {key: data[key] for key in ("type", "options") if key in data}
    if any(not is_same_value(held.get(key) or {}, value) for key, value in wanted.items()):
        remedy = "Nothing was changed there. Use another mount path in the catalog, or move what is mounted."
        raise SetupFailed(
            path, why=f"something else is mounted there already ({held.get('type')} {held.get('options') or ''})", remedy=remedy
        )
    return AppliedWrite(path, WriteOutcome.UNCHANGED)


def _fill_random(data: Mapping[str, Any]) -> dict[str, Any]:
    # Each placeholder is its own value.
    parts = json.dumps(data).split("${random}")
    return dict(json.loads("".join(part + _random_text() for part in parts[:-1]) + parts[-1]))


def _random_text() -> str:
    # 262 bits that need no escaping in JSON or in a URL, and are base64 of 33 bytes too: what webhooks want after `whsec_`.
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(44))
