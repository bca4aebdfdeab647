"""Vault's own locks (control groups): asking for what waits for people, who authorized, and the one unwrapping. Decides nothing.

Seen on OpenBao 2.7: a request under a control group answers with a wrapping token and its accessor, and is done only when that is unwrapped.
Unwrapping before people have authorized is refused and harms nothing; unwrapping twice does it twice; without the token that asked, or once the
wrapping token was revoked, it is refused for good. Revoking the wrapping token leaves alive what it gave.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from justenough.adapters.vault.client import IssuedSecret, JobToken, Vault, to_issued_secret
from justenough.adapters.vault.connection import safe_path
from justenough.adapters.vault.errors import UnknownHandle, VaultRefused
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import PAYLOAD_KEY


@dataclass(frozen=True, slots=True)
class WrappingToken:
    """What waits for people: the token that opens it once they have authorized, and the accessor by which they do."""

    accessor: str
    secret: Secret
    expires: datetime


@dataclass(frozen=True, slots=True)
class ControlGroupState:
    """What Vault says of one lock."""

    approved: bool
    """Whether enough people have authorized."""
    path: str
    data: Mapping[str, Any]
    authorized: frozenset[str]
    """Entity ids of those whose authorization counts."""

    def is_for(self, resolved: ResolvedIssue) -> bool:
        """Whether this is the lock of exactly this issue."""
        return self.path == resolved.path and dict(self.data) == dict(resolved.data)


def request_issue(vault: Vault, token: JobToken, resolved: ResolvedIssue) -> WrappingToken:
    """Ask for a locked issue and return what waits. Raises VaultRefused where Vault did not lock it, having ended what it gave."""
    answer = vault.send(token, resolved)
    wrap = (answer or {}).get("wrap_info")
    if not isinstance(wrap, dict) or wrap.get("creation_path") != resolved.path:
        revoke_token(vault, token.secret)
        message = (
            f"{resolved.path}: Vault asks nobody before it issues this; run `justenough vault setup`, which writes the lock into its policy"
        )
        raise VaultRefused(message)
    expires = datetime.now(UTC) + timedelta(seconds=int(wrap["ttl"]))
    return WrappingToken(accessor=str(wrap["accessor"]), secret=Secret(str(wrap["token"])), expires=expires)


def read_state(vault: Vault, accessor: str) -> ControlGroupState | None:
    """Return what Vault says of a lock; None where it knows none (any more)."""
    try:
        answer = vault.call_own("post", "sys/control-group/request", {"accessor": accessor})
    except UnknownHandle:
        return None
    data = (answer or {}).get("data")
    if not isinstance(data, dict):
        message = "this Vault has no control groups"
        raise VaultRefused(message)
    return ControlGroupState(
        approved=bool(data.get("approved")),
        path=str(data.get("request_path")),
        data=data.get("request_data") or {},
        authorized=frozenset(str(item.get("entity_id")) for item in data.get("authorizations") or ()),
    )


def unwrap(vault: Vault, wrapping: Secret, resolved: ResolvedIssue) -> IssuedSecret:
    """Return what Vault issues now that people have authorized it. Call it once: each call issues."""
    adapter = vault.adapter(wrapping)
    seen = (vault.call(adapter, "post", "sys/wrapping/lookup", {"token": wrapping.reveal()}) or {}).get("data") or {}
    if seen.get("creation_path") != resolved.path:
        message = f"{resolved.path}: what was kept for it opens something else"
        raise VaultRefused(message)
    return to_issued_secret(safe_path(resolved.path), vault.call(adapter, "post", "sys/wrapping/unwrap"))


def revoke_token(vault: Vault, token: Secret) -> None:
    """End a token that one holds, and with it whatever waits or lives by it; one that is unknown is already gone."""
    with suppress(UnknownHandle):
        vault.call_own("post", "auth/token/revoke", {"token": token.reveal()})


def revoke_wrapping_token(vault: Vault, ciphertext: str, *, about: str) -> None:
    """End what waits and is kept as a ciphertext."""
    revoke_token(vault, decrypt(vault, ciphertext, about=about))


def encrypt(vault: Vault, secret: Secret, *, about: str) -> str:
    """Return a secret as ciphertext that only Vault can read, and only as what it is `about`."""
    body = {"plaintext": _to_base64(secret.reveal()), "associated_data": _to_base64(about)}
    return str(((vault.call_own("post", f"transit/encrypt/{PAYLOAD_KEY}", body) or {}).get("data") or {})["ciphertext"])


def decrypt(vault: Vault, ciphertext: str, *, about: str) -> Secret:
    """Return the secret that a ciphertext stands for. Raises VaultRefused where it is about something else."""
    body = {"ciphertext": ciphertext, "associated_data": _to_base64(about)}
    plain = ((vault.call_own("post", f"transit/decrypt/{PAYLOAD_KEY}", body) or {}).get("data") or {})["plaintext"]
    return Secret(base64.b64decode(plain).decode())


def _to_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
