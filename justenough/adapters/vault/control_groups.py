"""Vault's control groups: the request of a locked issue, its authorizations, and the unwrapping of its result. Decides nothing.

Observed on OpenBao 2.7: Vault answers a request under a control group with a wrapping token and its accessor, and performs the request only
when the token is unwrapped. Unwrapping before it is authorized is refused and harmless. Unwrapping twice performs it twice. Unwrapping is
refused without the token under which the request was sent, and after the wrapping token was revoked. Revoking the wrapping token does not
revoke its result.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from justenough.adapters.vault.client import IssuedSecret, JobToken, Vault, to_issued_secret
from justenough.adapters.vault.connection import safe_path
from justenough.adapters.vault.errors import UnknownHandle, VaultRefused
from justenough.domain.catalog.models import ResolvedIssue
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import PAYLOAD_KEY


@dataclass(frozen=True, slots=True)
class WrappingToken:
    """The token that unwraps a request once people have authorized it, and the accessor by which they authorize it."""

    accessor: str
    secret: Secret
    expires: datetime


@dataclass(frozen=True, slots=True)
class ControlGroupState:
    """The state of one request under a control group."""

    approved: bool
    """Whether enough people have authorized."""
    path: str
    data: Mapping[str, Any]
    authorized: frozenset[str]
    """Entity ids of the people whose authorization counts."""

    def is_for(self, resolved: ResolvedIssue) -> bool:
        """Whether this is the request of exactly this issue."""
        return self.path == resolved.path and dict(self.data) == dict(resolved.data)


def request_issue(vault: Vault, token: JobToken, resolved: ResolvedIssue) -> WrappingToken:
    """Request a locked issue and return its wrapping token. If Vault did not lock it, revoke what it issued and raise VaultRefused."""
    wrap = (vault.send(token, resolved) or {}).get("wrap_info")
    if not isinstance(wrap, dict) or wrap.get("creation_path") != resolved.path:
        revoke_token(vault, token.secret)
        fix = "run `justenough vault setup`, which writes the control group into its policy"
        raise VaultRefused(f"{resolved.path}: Vault issues this without authorization; {fix}")
    expires = vault.clock.now() + timedelta(seconds=int(wrap["ttl"]))
    return WrappingToken(accessor=str(wrap["accessor"]), secret=Secret(str(wrap["token"])), expires=expires)


def read_state(vault: Vault, accessor: str) -> ControlGroupState | None:
    """Return the state of a request under a control group; None if Vault does not know it (any more)."""
    try:
        answer = vault.call_own("post", "sys/control-group/request", {"accessor": accessor})
    except UnknownHandle:
        return None
    data = (answer or {}).get("data")
    if not isinstance(data, dict):
        raise VaultRefused("this Vault has no control groups")
    return ControlGroupState(
        approved=bool(data.get("approved")),
        path=str(data.get("request_path")),
        data=data.get("request_data") or {},
        authorized=frozenset(str(item.get("entity_id")) for item in data.get("authorizations") or ()),
    )


def unwrap(vault: Vault, wrapping: Secret, resolved: ResolvedIssue) -> IssuedSecret:
    """Have Vault issue an authorized credential and return it. Call it once, because each call issues one."""
    adapter = vault.adapter(wrapping)
    wrapped = (vault.call(adapter, "post", "sys/wrapping/lookup", {"token": wrapping.reveal()}) or {}).get("data") or {}
    if wrapped.get("creation_path") != resolved.path:
        raise VaultRefused(f"{resolved.path}: its wrapping token is for another path")
    return to_issued_secret(safe_path(resolved.path), vault.call(adapter, "post", "sys/wrapping/unwrap"))


def revoke_token(vault: Vault, token: Secret) -> None:
    """Revoke a token and all that depends on it. An unknown token is already gone."""
    with suppress(UnknownHandle):
        vault.call_own("post", "auth/token/revoke", {"token": token.reveal()})


def revoke_wrapping_token(vault: Vault, ciphertext: str, *, about: str) -> None:
    """Revoke a wrapping token that was stored as ciphertext."""
    revoke_token(vault, decrypt(vault, ciphertext, about=about))


def encrypt(vault: Vault, secret: Secret, *, about: str) -> str:
    """Return a secret as ciphertext that only Vault can decrypt, and only with the same `about`."""
    body = {"plaintext": _to_base64(secret.reveal()), "associated_data": _to_base64(about)}
    return str(vault.read_data("post", f"transit/encrypt/{PAYLOAD_KEY}", body)["ciphertext"])


def decrypt(vault: Vault, ciphertext: str, *, about: str) -> Secret:
    """Return the secret of a ciphertext. Raises VaultRefused if it was encrypted with another `about`."""
    body = {"ciphertext": ciphertext, "associated_data": _to_base64(about)}
    return Secret(base64.b64decode(vault.read_data("post", f"transit/decrypt/{PAYLOAD_KEY}", body)["plaintext"]).decode())


def _to_base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
