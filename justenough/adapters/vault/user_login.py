"""Vault on behalf of a person who is logged in to the pages: log in, sign, authorize, log out; and their token as ciphertext. Keeps no token.

Observed on OpenBao 2.7: wrong passwords and unknown names get the same 400. After five wrong passwords in a row, an existing name gets 403
for fifteen minutes, as does a mount that does not exist. A token always carries the policies of its person's groups, whatever its mount
allows. The policies are therefore returned here, for the caller to check.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from justenough.adapters.vault.connection import VaultAnswer, VaultConnection, safe_path
from justenough.adapters.vault.errors import UnknownHandle, VaultDenied, VaultRefused
from justenough.domain.core.errors import Conflict, GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import PAGE_SESSION_KEY, signing_key

INVALID_LOGIN_NAMES = {"", ".", ".."}
NOTHING_WAITS = "Vault no longer has this request to authorize: it has expired, or its job has ended"


class LoginRefused(GiveUp):
    """The name or password is wrong, or the name is locked for now. Vault does not reveal which."""


class ProviderRefused(GiveUp):
    """Vault did not accept the identity provider's response. The message quotes Vault."""


class NoSuchLogin(GiveUp):
    """Vault has no such login, or does not allow it for this address. The message names the remedy."""


class SecondFactorRequired(GiveUp):
    """Vault requires a second factor for this login, which the pages do not support."""


class Unreadable(GiveUp):
    """A ciphertext was not encrypted with this context."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """Owner and policies of a live token."""

    entity: str
    """Vault entity id; empty if it has none."""
    policies: frozenset[str]
    """From its mount and from its person's groups."""


@dataclass(frozen=True, slots=True)
class LoginResult(TokenInfo):
    """The token of a login."""

    token: Secret
    role: str
    """The mount's role; empty if the mount has none."""


def log_in(vault: VaultConnection, name: str, password: Secret, *, mount: str) -> LoginResult:
    """Log a person in by name and password (userpass or ldap). Raises LoginRefused, SecondFactorRequired, RetryLater."""
    if name in INVALID_LOGIN_NAMES:
        raise LoginRefused("not a login name")
    try:
        path = f"auth/{safe_path(mount.strip('/'))}/login/{quote(name, safe='')}"
        answer = vault.call(vault.adapter(None), "post", path, {"password": password.reveal()})
    except (VaultRefused, VaultDenied) as error:
        raise LoginRefused("Vault did not accept the login") from error
    return _to_login_result(answer)


def begin_oidc(vault: VaultConnection, mount: str, *, role: str, redirect: str, nonce: str) -> str:
    """Return the identity provider's URL at which a browser logs in and then returns to `redirect`. Raises NoSuchLogin, RetryLater."""
    path = f"auth/{safe_path(mount.strip('/'))}/oidc/auth_url"
    body = {"role": role, "redirect_uri": redirect, "client_nonce": nonce}
    try:
        url = ((vault.call(vault.adapter(None), "post", path, body) or {}).get("data") or {}).get("auth_url")
    except (VaultRefused, VaultDenied) as error:
        raise NoSuchLogin(f"Vault has no OIDC login at {mount}/, or no such role there") from error
    if not url:
        raise NoSuchLogin(f"Vault does not allow this login to return to {redirect}: add it to the role's allowed_redirect_uris")
    return str(url)


def finish_oidc(vault: VaultConnection, mount: str, *, state: str, code: str, nonce: str) -> LoginResult:
    """Log a person in with the parameters of their identity provider's redirect. Raises ProviderRefused, SecondFactorRequired, RetryLater."""
    params = {"state": state, "code": code, "client_nonce": nonce}
    try:
        answer = vault.call(vault.adapter(None), "get", f"auth/{safe_path(mount.strip('/'))}/oidc/callback", params=params)
    except (VaultRefused, VaultDenied) as error:
        raise ProviderRefused(str(error)) from error
    return _to_login_result(answer)


def look_up_token(vault: VaultConnection, token: Secret) -> TokenInfo | None:
    """Return a token's owner and policies; None if it is no longer alive."""
    try:
        data = (vault.call(vault.adapter(token), "get", "auth/token/lookup-self") or {}).get("data") or {}
    except VaultDenied:
        return None
    policies = frozenset((*(data.get("policies") or ()), *(data.get("identity_policies") or ())))
    return TokenInfo(str(data.get("entity_id") or ""), policies)


def renew_token(vault: VaultConnection, token: Secret) -> None:
    """Renew a token, as far as its mount allows."""
    vault.call(vault.adapter(token), "post", "auth/token/renew-self", {})


def revoke_token(vault: VaultConnection, token: Secret) -> None:
    """Revoke a token. Idempotent."""
    with suppress(VaultDenied, UnknownHandle):
        vault.call(vault.adapter(token), "post", "auth/token/revoke-self", {})


def create_signing_key(vault: VaultConnection, token: Secret, entity: str) -> None:
    """Create the person's signing key. An existing key stays as it is."""
    vault.call(vault.adapter(token), "post", f"transit/keys/{signing_key(safe_path(entity))}", {"type": "ed25519"})


def sign(vault: VaultConnection, token: Secret, entity: str, content: bytes) -> str:
    """Sign some bytes with the person's key and return the signature in Vault's format."""
    body = {"input": base64.b64encode(content).decode()}
    answer = vault.call(vault.adapter(token), "post", f"transit/sign/{signing_key(safe_path(entity))}", body)
    return _require_text(answer, "signature")


def authorize(vault: VaultConnection, token: Secret, accessor: str) -> bool:
    """Authorize a control group's request. Return whether Vault needs no further authorization. Raises Conflict if the request is gone."""
    try:
        answer = vault.call(vault.adapter(token), "post", "sys/control-group/authorize", {"accessor": accessor})
    except VaultRefused as error:
        if "already authorized" in str(error):
            return False
        raise Conflict(NOTHING_WAITS) from error
    return bool(((answer or {}).get("data") or {}).get("approved"))


def encrypt_token(vault: VaultConnection, token: Secret, context: bytes) -> str:
    """Encrypt a token under the console's own login; return ciphertext that can be decrypted only with this context."""
    body = {"plaintext": base64.b64encode(token.reveal().encode()).decode(), "context": base64.b64encode(context).decode()}
    return _require_text(vault.call_own("post", f"transit/encrypt/{PAGE_SESSION_KEY}", body), "ciphertext")


def decrypt_token(vault: VaultConnection, ciphertext: str, context: bytes) -> Secret:
    """Decrypt a token under the console's own login and return it. Raises Unreadable if it was encrypted with another context."""
    body = {"ciphertext": ciphertext, "context": base64.b64encode(context).decode()}
    try:
        answer = vault.call_own("post", f"transit/decrypt/{PAGE_SESSION_KEY}", body)
    except VaultRefused as error:
        raise Unreadable("the session's token cannot be decrypted") from error
    return Secret(base64.b64decode(_require_text(answer, "plaintext")).decode())


def _to_login_result(answer: VaultAnswer | None) -> LoginResult:
    auth: Mapping[str, Any] = (answer or {}).get("auth") or {}
    if auth.get("mfa_requirement"):
        raise SecondFactorRequired("Vault requires a second factor")
    if not auth.get("client_token"):
        raise LoginRefused("Vault returned no token")
    role = str((auth.get("metadata") or {}).get("role") or "")
    return LoginResult(str(auth.get("entity_id") or ""), frozenset(auth.get("policies") or ()), Secret(str(auth["client_token"])), role)


def _require_text(answer: VaultAnswer | None, name: str) -> str:
    text = ((answer or {}).get("data") or {}).get(name)
    if not isinstance(text, str):
        raise VaultRefused(f"Vault returned no {name}")
    return text
