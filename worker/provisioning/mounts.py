"""Engines, auth methods and the catalog's own writes. What is mounted already is kept as it is, or refused; never remounted."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Iterator, Mapping
from typing import Any

from justenough.domain.catalog.loader import VaultWrite
from justenough.domain.core.vault_names import HOURS
from worker.provisioning.admin_client import AdminVault, Applied, Outcome, SetupFailed
from worker.provisioning.compare import same


def engine(vault: AdminVault, name: str, data: Mapping[str, Any]) -> Applied:
    """Mount a secrets engine unless it is there."""
    return _mounted(vault, "sys/mounts", name, data)


def auth_method(vault: AdminVault, name: str, data: Mapping[str, Any]) -> Applied:
    """Enable an auth method unless it is there."""
    return _mounted(vault, "sys/auth", name, data)


def accessor(vault: AdminVault, name: str) -> str | None:
    """Return the accessor of an auth mount, None where there is none."""
    found = (vault.read("sys/auth") or {}).get(f"{name}/")
    return str(found["accessor"]) if found else None


def token_life(vault: AdminVault) -> Applied:
    """See that tokens may live as long as the longest job: a shorter maximum would end a job's access before its time."""
    path, needed = "sys/auth/token/tune", HOURS[-1] * 3600
    held = int((vault.read(path) or {}).get("max_lease_ttl", 0))
    if held >= needed:
        return Applied(path, Outcome.UNCHANGED)
    vault.write(path, {"max_lease_ttl": f"{needed}s"})
    return Applied(path, Outcome.CHANGED, f"max_lease_ttl {held} s → {needed} s")


def catalog_writes(vault: AdminVault, writes: tuple[VaultWrite, ...]) -> Iterator[Applied]:
    """Apply the catalog's `provision`, in order."""
    for write in writes:
        where, _, name = write.path.rpartition("/")
        if where in {"sys/mounts", "sys/auth"}:
            yield _mounted(vault, where, name, write.data)
        elif write.once and vault.read(write.path) is not None:
            yield Applied(write.path, Outcome.UNCHANGED)
        elif write.unless is not None:
            yield _made_once(vault, write, write.unless)
        else:
            yield vault.ensure(write.path, _with_random(write.data) if write.once else write.data)


def _made_once(vault: AdminVault, write: VaultWrite, unless: str) -> Applied:
    if vault.list(unless):
        return Applied(write.path, Outcome.UNCHANGED)
    vault.write(write.path, write.data)
    return Applied(write.path, Outcome.CREATED)


def _mounted(vault: AdminVault, where: str, name: str, data: Mapping[str, Any]) -> Applied:
    path = f"{where}/{name}"
    held = (vault.read(where) or {}).get(f"{name}/")
    if held is None:
        vault.write(path, data)
        return Applied(path, Outcome.CREATED)
    wanted = {key: data[key] for key in ("type", "options") if key in data}
    if any(not same(held.get(key) or {}, value) for key, value in wanted.items()):
        remedy = "Nothing was changed there. Use another mount path in the catalog, or move what is mounted."
        raise SetupFailed(
            path, why=f"something else is mounted there already ({held.get('type')} {held.get('options') or ''})", remedy=remedy
        )
    return Applied(path, Outcome.UNCHANGED)


def _with_random(data: Mapping[str, Any]) -> dict[str, Any]:
    # Each placeholder is its own value.
    parts = json.dumps(data).split("${random}")
    return dict(json.loads("".join(part + _random() for part in parts[:-1]) + parts[-1]))


def _random() -> str:
    # 262 bits that need no escaping in JSON or in a URL, and are base64 of 33 bytes too: what webhooks want after `whsec_`.
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(44))
