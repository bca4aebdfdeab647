"""Vault on behalf of a person who is logged in to the pages: log in, sign, authorize, end; and their token as ciphertext. Keeps no token.

Seen on OpenBao 2.7: wrong passwords and unknown names get the same 400; after five wrong ones in a row a name that exists gets 403 for
fifteen minutes, and so does a mount that does not exist. A token carries the policies of its person's groups, whatever its mount says,
and the API has no way to leave them out: so what a token carries is told here, for whoever keeps it to judge.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from justenough.adapters.vault.connection import VaultAnswer, VaultConnection, safe_path
from justenough.adapters.vault.errors import UnknownHandle, VaultDenied, VaultRefused
from justenough.domain.core.errors import Conflict, GiveUp
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import PAGE_SESSION_KEY

INVALID_LOGIN_NAMES = {"", ".", ".."}
NOTHING_WAITS = "nothing waits in Vault for your authorization any more: its time is over, or its job has ended"


class LoginRefused(GiveUp):
    """The name and password do not hold, or the name is locked for now; Vault does not tell strangers which."""


class ProviderRefused(GiveUp):
    """Vault did not accept what an identity provider answered; the message has Vault's words."""


class NoSuchLogin(GiveUp):
    """Vault has no such way to log in, or not for this address; the message says what to do."""


class SecondFactorWanted(GiveUp):
    """Vault wants a second factor for this login, which the pages cannot ask for."""


class Unreadable(GiveUp):
    """A ciphertext is not of this secret."""


@dataclass(frozen=True, slots=True)
class LoginResult:
    """What a login brought."""

    token: Secret
    entity: str
    """Vault entity id; empty where the login has none."""
    policies: frozenset[str]
    """What the token carries, by its mount and by its person's groups."""
    role: str = ""
    """The mount's role that it was by, as Vault says; empty where the mount has none."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What a token is worth now."""

    entity: str
    """Vault entity id; empty where it is nobody's."""
    policies: frozenset[str]


def log_in(vault: VaultConnection, name: str, password: Secret, *, mount: str) -> LoginResult:
    """Log a person in by name and password (userpass and ldap alike). Raises LoginRefused, SecondFactorWanted, RetryLater."""
    if name in INVALID_LOGIN_NAMES:
        message = "no login name"
        raise LoginRefused(message)
    try:
        path = f"auth/{safe_path(mount.strip('/'))}/login/{quote(name, safe='')}"
        answer = vault.call(vault.adapter(None), "post", path, {"password": password.reveal()})
    except (VaultRefused, VaultDenied) as error:
        message = "Vault did not accept the login"
        raise LoginRefused(message) from error
    return _to_login_result(answer)


def begin_oidc(vault: VaultConnection, mount: str, *, role: str, redirect: str, nonce: str) -> str:
    """Return where a browser logs in at the mount's identity provider, to come back to `redirect`. Raises NoSuchLogin, RetryLater."""
    where = f"auth/{safe_path(mount.strip('/'))}"
    body = {"role": role, "redirect_uri": redirect, "client_nonce": nonce}
    try:
        url = ((vault.call(vault.adapter(None), "post", f"{where}/oidc/auth_url", body) or {}).get("data") or {}).get("auth_url")
    except (VaultRefused, VaultDenied) as error:
        message = f"Vault has no OIDC login at {mount}/, or no such role there"
        raise NoSuchLogin(message) from error
    if not url:
        message = f"Vault does not let this login come back to {redirect}: its role needs that in allowed_redirect_uris"
        raise NoSuchLogin(message)
    return str(url)


def finish_oidc(vault: VaultConnection, mount: str, *, state: str, code: str, nonce: str) -> LoginResult:
    """Log a person in by what their identity provider's redirect brought, once. Raises ProviderRefused, SecondFactorWanted, RetryLater."""
    params = {"state": state, "code": code, "client_nonce": nonce}
    try:
        answer = vault.call(vault.adapter(None), "get", f"auth/{safe_path(mount.strip('/'))}/oidc/callback", params=params)
    except (VaultRefused, VaultDenied) as error:
        raise ProviderRefused(str(error)) from error
    return _to_login_result(answer)


def look_up_token(vault: VaultConnection, token: Secret) -> TokenInfo | None:
    """Return whose a token is and what it carries now; None where it is not alive any more."""
    try:
        data = (vault.call(vault.adapter(token), "get", "auth/token/lookup-self") or {}).get("data") or {}
    except VaultDenied:
        return None
    policies = frozenset((*(data.get("policies") or ()), *(data.get("identity_policies") or ())))
    return TokenInfo(str(data.get("entity_id") or ""), policies)


def renew_token(vault: VaultConnection, token: Secret) -> None:
    """Let a token live on, as far as its mount allows."""
    vault.call(vault.adapter(token), "post", "auth/token/renew-self", {})


def revoke_token(vault: VaultConnection, token: Secret) -> None:
    """End a token; one that has ended already is fine."""
    try:
        vault.call(vault.adapter(token), "post", "auth/token/revoke-self", {})
    except (VaultDenied, UnknownHandle):
        return


def create_signing_key(vault: VaultConnection, token: Secret, entity: str) -> None:
    """Make the person's signing key; one that is there stays as it is."""
    vault.call(vault.adapter(token), "post", f"transit/keys/je-sign-{safe_path(entity)}", {"type": "ed25519"})


def sign(vault: VaultConnection, token: Secret, entity: str, content: bytes) -> str:
    """Return the person's signature over some bytes, in Vault's form."""
    body = {"input": base64.b64encode(content).decode()}
    answer = vault.call(vault.adapter(token), "post", f"transit/sign/je-sign-{safe_path(entity)}", body)
    return str(_require_text(answer, "signature"))


def authorize(vault: VaultConnection, token: Secret, accessor: str) -> bool:
    """Authorize what waits in Vault under an accessor, once; return whether Vault now has all the authorizations that it wants.

    Raises Conflict where nothing waits there any more.
    """
    try:
        answer = vault.call(vault.adapter(token), "post", "sys/control-group/authorize", {"accessor": accessor})
    except VaultRefused as error:
        if "already authorized" in str(error):
            return False
        raise Conflict(NOTHING_WAITS) from error
    return bool(((answer or {}).get("data") or {}).get("approved"))


def encrypt_token(vault: VaultConnection, token: Secret, context: bytes) -> str:
    """Return a token as ciphertext that only this context opens. Under our own login."""
    body = {"plaintext": base64.b64encode(token.reveal().encode()).decode(), "context": base64.b64encode(context).decode()}
    return str(_require_text(vault.call_own("post", f"transit/encrypt/{PAGE_SESSION_KEY}", body), "ciphertext"))


def decrypt_token(vault: VaultConnection, ciphertext: str, context: bytes) -> Secret:
    """Return the token of a ciphertext. Under our own login. Raises Unreadable where the context is another's."""
    body = {"ciphertext": ciphertext, "context": base64.b64encode(context).decode()}
    try:
        answer = vault.call_own("post", f"transit/decrypt/{PAGE_SESSION_KEY}", body)
    except VaultRefused as error:
        message = "the session's token cannot be opened"
        raise Unreadable(message) from error
    return Secret(base64.b64decode(str(_require_text(answer, "plaintext"))).decode())


def _to_login_result(answer: VaultAnswer | None) -> LoginResult:
    auth: Mapping[str, Any] = (answer or {}).get("auth") or {}
    if auth.get("mfa_requirement"):
        message = "Vault wants a second factor"
        raise SecondFactorWanted(message)
    if not auth.get("client_token"):
        message = "Vault gave no token"
        raise LoginRefused(message)
    role = str((auth.get("metadata") or {}).get("role") or "")
    return LoginResult(Secret(str(auth["client_token"])), str(auth.get("entity_id") or ""), frozenset(auth.get("policies") or ()), role)


def _require_text(answer: VaultAnswer | None, name: str) -> Any:
    found = ((answer or {}).get("data") or {}).get(name)
    if not isinstance(found, str):
        message = f"Vault gave no {name}"
        raise VaultRefused(message)
    return found
