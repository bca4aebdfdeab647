"""Vault's errors, named by what the caller must do, and their translation from answers.

Messages never contain a token, a secret or a quoted value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from justenough.domain.core.errors import GiveUp, RetryLater

# Words of Vault's answer that may be a value (quoted, or long with mixed letters and digits) are never passed on.
VALUE_LIKE = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\"[^\"]*\"|(?=[^\s/]*[0-9])(?=[^\s/]*[A-Za-z])[^\s/]{16,}")
# Why Vault does not accept an identity provider's answer, in words of Vault's library (hashicorp/cap) and of OAuth. Vault quotes them.
PROVIDER_FAULT = re.compile(
    r"token is expired|expired auth_time|invalid (?:issued at|not before|nonce|issuer|audience|signature)|id_token is missing"
    r"|invalid_(?:client|grant)|connection refused"
)
# HashiCorp's and OpenBao's messages for an unknown handle.
UNKNOWN_HANDLE_TEXT = re.compile(r"invalid lease|lease not found|invalid accessor|could not find accessor", re.IGNORECASE)
# A node lost its leadership while it wrote, or the request took too long. Vault answers 400, but may have carried out the request.
UNKNOWN_OUTCOME_TEXT = re.compile(
    r"leadership (?:lost|transfer)|not the leader|raft is already shutdown|timed out enqueuing|context (?:canceled|deadline)"
)

CHECK_ADDRESS = "check VAULT_ADDR and that server"
CHECK_CA = "correct VAULT_CACERT"
TRUST_IT = "set VAULT_CACERT to the CA that signed its certificate, or VAULT_ADDR to a name in the certificate"
REASONS = (
    (r"certificate verify failed: (.+?)(?: \(_ssl|'\))", TRUST_IT),
    (r"(WRONG_VERSION_NUMBER)", "it does not speak TLS: write VAULT_ADDR with http://, or correct its port"),
    (r"(invalid path: .*)", CHECK_CA),
    (r"(no certificate or crl found)", CHECK_CA),
    (r"(alert [a-z0-9 ]+)", "it refuses our TLS, or demands a client certificate"),
    (r"(Connection broken)", "check that server; if it speaks TLS: write VAULT_ADDR with https://"),
    (r"\[Errno -?\d+\] ([^'\")]+)", CHECK_ADDRESS),
    (r"(Read timed out|timed out)", CHECK_ADDRESS),
)
"""By the client library's message, what is wrong with a connection and what to do."""
PLAIN_HTTP_TO_TLS = b"Client sent an HTTP request to an HTTPS server"
"""How a server that speaks TLS answers plain HTTP."""


class VaultUnavailable(RetryLater):
    """Vault, or a system that it needs for this call, does not answer now."""


class ConnectionRefused(VaultUnavailable):
    """Nothing listens at the address of Vault, or of a system that it needs for this call: the server may be restarting."""


class VaultSealed(RetryLater):
    """Vault is sealed or not initialised yet."""


class VaultDenied(GiveUp):
    """The token has no permission for this call."""


class VaultLoginDenied(VaultDenied):
    """Vault refused our own login, or its login file cannot be used."""


class VaultRefused(GiveUp):
    """Vault understood the call and rejected it."""


class UnknownHandle(VaultRefused):
    """Vault knows no such lease or accessor."""


def is_plain_http_refused(status: int, content: bytes) -> bool:
    """Whether a server that speaks TLS answers that we do not."""
    return status == 400 and content.startswith(PLAIN_HTTP_TO_TLS)


def unreachable(address: str, error: BaseException) -> VaultUnavailable:
    """Return the error for a call that got no answer: what is wrong, where, and what to do."""
    found = next(((match[1], remedy) for pattern, remedy in REASONS if (match := re.search(pattern, str(error)))), None)
    reason, remedy = found or ("", "write it as https://host:8200" if isinstance(error, ValueError) else CHECK_ADDRESS)
    kind = ConnectionRefused if was_refused(error) else VaultUnavailable
    why = f"{type(error).__name__}{reason and f': {reason}'}"
    return kind(f"Vault at {address.rpartition('@')[2]} did not answer ({why})", remedy=remedy)


def was_refused(error: BaseException | None) -> bool:
    """Whether an error comes from a refused connection, so that nothing was sent."""
    while error is not None and not isinstance(error, ConnectionRefusedError):
        error = error.__cause__ or error.__context__
    return error is not None


def refusal(status: int, what: str, answer: Mapping[str, Any]) -> RetryLater | GiveUp:
    """Return the error for an HTTP status of 300 or more. `what` is method and path."""
    errors = answer.get("errors")
    text = " ".join(" ".join(str(error) for error in errors).split()) if isinstance(errors, list) else ""
    if status == 307:
        text = "a standby that cannot forward it to the active node"
    error: type[RetryLater | GiveUp] = VaultRefused
    if status in {400, 403} and UNKNOWN_HANDLE_TEXT.search(text):
        error = UnknownHandle
    elif status == 403:
        error = VaultDenied
    elif status in {501, 503}:
        error = VaultSealed
    elif status == 500 and "connection refused" in text:
        # An engine connects to its system before it makes anything there.
        error = ConnectionRefused
    elif status >= 500 or status in {307, 412, 429, 472, 473} or UNKNOWN_OUTCOME_TEXT.search(text):
        # 307 and 472, 473: a standby that does not forward; 412: it has not caught up; 429: too many requests.
        error = VaultUnavailable
    quote = VALUE_LIKE.sub("…", text)[:200]
    if "exchanging oidc code" in text and (fault := PROVIDER_FAULT.search(text)):
        quote += f" {fault[0]}"
    return error(f"{what}: Vault answered {status}" + (f" ({quote})" if quote else ""))
