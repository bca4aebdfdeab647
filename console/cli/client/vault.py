"""A person's Vault client: log in, create and use the person's signing key, create identity tokens. Prints no token."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from console.cli.client.config import ADDRESS_HINT, ServerAddresses
from console.cli.client.http_client import GATEWAY_STATUSES, open_http_client, to_unreachable
from console.cli.errors import ExitCode, Failure, NotLoggedIn, Unreachable
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.secret import Secret
from justenough.domain.core.vault_names import IDENTITY_ROLE, signing_key

HTTP_TIMEOUT = httpx.Timeout(15.0, connect=5.0)


@dataclass(frozen=True, slots=True)
class CliLogin:
    token: Secret
    entity: str
    expires: float
    """Seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class ConsoleIdentityToken:
    """A short-lived token for the console that only identifies its bearer."""

    token: Secret
    entity: str
    name: str
    expires: float


class PersonVaultClient:
    def __init__(self, addresses: ServerAddresses) -> None:
        if addresses.vault is None:
            raise Failure("Vault's address is unknown", hint=ADDRESS_HINT)
        self.address, self._namespace = addresses.vault, addresses.namespace
        headers = {"X-Vault-Request": "true"} | ({"X-Vault-Namespace": addresses.namespace} if addresses.namespace else {})
        self._http = open_http_client(self.address, path="/v1/", cacert=addresses.cacert, headers=headers, timeout=HTTP_TIMEOUT)

    def log_in(self, user: str, password: Secret, *, mount: str) -> CliLogin:
        """Log in by name and password, at a userpass or ldap mount. Raises NotLoggedIn if Vault refuses them."""
        began, mount = time.time(), mount.strip("/")
        answer = self._send("POST", f"auth/{quote(mount)}/login/{quote(user, safe='')}", {"password": password.reveal()})
        # Vault answers 403 if the mount does not exist, too, and "unsupported path" for a name that userpass does not allow.
        if answer.status_code in {400, 401, 403} or (answer.status_code == 404 and "unsupported path" in answer.text):
            hint = f"If your login is not at the mount {mount}/, give another --mount"
            raise NotLoggedIn(f"Vault at {self.address} did not accept this name and password at {mount}/", hint=hint)
        return self._read_login(answer, began)

    def oidc_url(self, mount: str, *, role: str, redirect: str, nonce: str) -> str:
        """Return the login page of the mount's identity provider, which redirects back to `redirect`."""
        body = {"role": role, "redirect_uri": redirect, "client_nonce": nonce}
        answer = self._send("POST", f"auth/{quote(mount.strip('/'))}/oidc/auth_url", body)
        # Without a token, Vault answers 403 even for a mount or role that does not exist.
        if answer.status_code in {400, 403}:
            raise Failure(
                f"Vault at {self.address} has no OIDC login at {mount}/" + (f" with a role {role}" if role else " with a default role"),
                hint="Give another --mount or --role",
            )
        url = str((self._read_answer(answer).get("data") or {}).get("auth_url") or "")
        if not url:
            raise Failure(f"Vault does not allow this login to redirect to {redirect}", hint="Add it to the role's allowed_redirect_uris")
        return url

    def complete_oidc_login(self, mount: str, *, state: str, code: str, nonce: str) -> CliLogin:
        """Log in with the code from the identity provider's redirect. Raises NotLoggedIn."""
        began = time.time()
        params = {"state": state, "code": code, "client_nonce": nonce}
        answer = self._send("GET", f"auth/{quote(mount.strip('/'))}/oidc/callback", params=params)
        if answer.status_code in {400, 401, 403}:
            raise NotLoggedIn(f"Vault at {self.address} did not accept your identity provider's answer", hint="")
        return self._read_login(answer, began)

    def _read_login(self, answer: httpx.Response, began: float) -> CliLogin:
        auth = self._read_answer(answer).get("auth") or {}
        if not auth.get("entity_id"):
            raise NotLoggedIn(
                "Vault returned no identity token for this login; if it needs a second factor, log in with `bao login` and set VAULT_TOKEN",
                hint="",
            )
        return CliLogin(Secret(auth["client_token"]), auth["entity_id"], began + float(auth.get("lease_duration") or 0))

    def ensure_signing_key(self, token: Secret, entity: str) -> None:
        """Create the person's signing key, unless it exists."""
        self._read_answer(self._send("POST", f"transit/keys/{signing_key(entity)}", {"type": "ed25519"}, token))

    def sign(self, token: Secret, entity: str, content: bytes) -> str:
        """Return the person's signature of some bytes, in Vault's format."""
        body = {"input": base64.b64encode(content).decode()}
        return str(self._read_answer(self._send("POST", f"transit/sign/{signing_key(entity)}", body, token))["data"]["signature"])

    def authorize(self, token: Secret, accessor: str) -> bool:
        """Authorize a control-group request by its accessor; return whether the control group is satisfied."""
        answer = self._send("POST", "sys/control-group/authorize", {"accessor": accessor}, token)
        if "already authorized" in answer.text:
            return False
        if answer.status_code == 400:
            raise Failure("Vault no longer has this request to authorize: it has expired, or its job has ended", code=ExitCode.CONFLICT)
        return bool((self._read_answer(answer).get("data") or {}).get("approved"))

    def create_identity_token(self, token: Secret) -> ConsoleIdentityToken:
        answer = self._read_answer(self._send("GET", f"identity/oidc/token/{IDENTITY_ROLE}", None, token))
        return decode_identity_token(Secret(str((answer.get("data") or {}).get("token"))))

    def revoke(self, token: Secret) -> None:
        """Revoke a token. Does nothing if the token is no longer valid."""
        answer = self._send("POST", "auth/token/revoke-self", None, token)
        if answer.status_code not in {400, 403}:
            self._read_answer(answer)

    @contextmanager
    def revoke_on_failure(self, token: Secret) -> Iterator[None]:
        """Revoke a new token if the block fails: nobody could use or revoke it later."""
        try:
            yield
        except BaseException:
            with suppress(JustEnoughError):
                self.revoke(token)
            raise

    def _send(
        self, method: str, path: str, body: object = None, token: Secret | None = None, *, params: Mapping[str, str] | None = None
    ) -> httpx.Response:
        headers = {"X-Vault-Token": token.reveal()} if token else {}
        try:
            answer = self._http.request(method, path, json=body, headers=headers, params=params)
        except httpx.TransportError as error:
            raise to_unreachable("Vault", self.address, error, authority="VAULT_CACERT") from error
        if answer.status_code == 400 and "HTTP request to an HTTPS server" in answer.text:
            raise Failure(f"Vault at {self.address} speaks TLS", hint="Write its address with https://")
        if answer.status_code == 404 and "namespace not found" in answer.text:
            raise Failure(f"Vault at {self.address} has no namespace {self._namespace}", hint="Correct VAULT_NAMESPACE")
        return answer

    def _read_answer(self, answer: httpx.Response) -> dict[str, Any]:
        if answer.status_code in {401, 403}:
            raise NotLoggedIn("your login is no longer valid, or lacks the policy je-person")
        # 307: a standby that finds no active node to which it could forward.
        if answer.status_code in {307, *GATEWAY_STATUSES}:
            raise Unreachable(f"Vault at {self.address} is sealed or not ready ({answer.status_code})")
        try:
            found = answer.json() if answer.content else {}
        except ValueError:
            found = None
        if answer.is_success:
            if isinstance(found, dict):
                return found
            raise Failure(f"{self.address} did not answer like a Vault; check the address")
        errors = [str(error) for error in (found.get("errors") if isinstance(found, dict) else None) or ()]
        if any("no entity" in error for error in errors):
            raise NotLoggedIn("the token does not belong to a person: it has no Vault entity")
        raise Failure(f"Vault at {self.address} answered {answer.status_code}: {'; '.join(errors) or 'no reason was returned'}")


def decode_identity_token(token: Secret) -> ConsoleIdentityToken:
    """Decode an identity token without verifying it: it comes from Vault itself, and the console verifies it. Raises Failure."""
    try:
        part = token.reveal().split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        return ConsoleIdentityToken(token, str(claims["sub"]), str(claims.get("name", "")), float(claims["exp"]))
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise Failure("cannot decode the identity token from Vault") from error
