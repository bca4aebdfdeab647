"""Vault's errors, named by what the caller must do, and how Vault's answers become one. Never a token, a secret or a quoted value."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from justenough.domain.core.errors import GiveUp, RetryLater

# Words of Vault's answer that might be a value (quoted, or long with letters and digits mixed): never passed on.
VALUE_LIKE = re.compile(r"'[^']*'|\"[^\"]*\"|(?=[^\s/]*[0-9])(?=[^\s/]*[A-Za-z])[^\s/]{16,}")
# HashiCorp's and OpenBao's ways to say that a handle stands for nothing.
UNKNOWN_HANDLE_TEXT = re.compile(r"invalid lease|lease not found|invalid accessor|could not find accessor", re.IGNORECASE)


class VaultUnavailable(RetryLater):
    """Vault, or what it needs for this call, does not answer now."""


class VaultSealed(RetryLater):
    """Vault is sealed or not initialised yet."""


class VaultDenied(GiveUp):
    """The token that was used may not do this."""


class VaultRefused(GiveUp):
    """Vault understood and said no."""


class UnknownHandle(VaultRefused):
    """Vault knows no such lease or accessor."""


def refusal(status: int, what: str, answer: Mapping[str, Any]) -> RetryLater | GiveUp:
    """Return the error that an HTTP status of 300 or more stands for; `what` is method and path."""
    errors = answer.get("errors")
    text = " ".join(" ".join(str(error) for error in errors).split()) if isinstance(errors, list) else ""
    said = VALUE_LIKE.sub("…", text)[:200]
    return _error_class(status, text)(f"{what}: Vault answered {status}" + (f" ({said})" if said else ""))


def _error_class(status: int, text: str) -> type[RetryLater | GiveUp]:
    if status in {400, 403} and UNKNOWN_HANDLE_TEXT.search(text):
        return UnknownHandle
    if status == 403:
        return VaultDenied
    if status in {501, 503}:
        return VaultSealed
    # 307 and 472, 473: a standby that does not forward; 412: it has not caught up; 429: too many requests.
    return VaultUnavailable if status >= 500 or status in {307, 412, 429, 472, 473} else VaultRefused
