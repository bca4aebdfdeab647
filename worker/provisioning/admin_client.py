"""Reads and writes Vault as its administrator: each write is compared with what is there, each failure names its path and the remedy.

Holds the admin token for the time of one setup; nothing of it, and no secret that was written, is in an error message.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.secret import Secret
from worker.provisioning.compare import covers, has_changed

REQUEST_TIMEOUT_S = 15.0
"""Seconds for one call."""
MOUNT_TIMEOUT_S = 10.0
"""Seconds that a freshly mounted engine may take until it accepts writes."""
WARMING_UP_MESSAGES = ("Upgrading from non-versioned to versioned", "Waiting for the primary to upgrade")


class WriteOutcome(StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    """Something else than we would write is there, and stays; the note says why."""


@dataclass(frozen=True, slots=True)
class AppliedWrite:
    """What became of one path."""

    path: str
    outcome: WriteOutcome
    note: str = ""


class SetupFailed(GiveUp):
    """One step cannot be done; names the path in Vault, Vault's own words and what to do."""

    def __init__(self, path: str, *, why: str, remedy: str) -> None:
        self.path = path
        self.remedy = remedy
        super().__init__(f"{path}: {why}. {remedy}")


class VaultNotReady(RetryLater):
    """Vault does not answer, or is sealed."""


class AdminClient:
    """A context manager over one connection."""

    def __init__(
        self, address: str, token: Secret, *, namespace: str | None = None, cacert: Path | None = None, hide: Iterable[str] = ()
    ) -> None:
        self.address = address.rstrip("/")
        self._token = token
        self._hide = tuple(sorted({value for value in hide if len(value) >= 4}, key=len, reverse=True))
        headers = {"X-Vault-Request": "true"} | ({"X-Vault-Namespace": namespace} if namespace else {})
        verify: Any = str(cacert) if cacert else True
        self._http = httpx.Client(
            base_url=f"{self.address}/v1/", headers=headers, verify=verify, timeout=REQUEST_TIMEOUT_S, trust_env=False
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def read(self, path: str) -> dict[str, Any] | None:
        """Return what is at a path, None where nothing is. Raises SetupFailed, VaultNotReady."""
        answer = self._send("GET", path)
        return None if answer.status_code == 404 else self._data(answer, path)

    def list(self, path: str) -> tuple[str, ...]:
        """Return the names below a path."""
        answer = self._send("LIST", path)
        return () if answer.status_code == 404 else tuple(self._data(answer, path).get("keys", ()))

    def write(self, path: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Write, and return Vault's answer. Waits, bounded, for an engine that was just mounted. Raises SetupFailed, VaultNotReady."""
        until = time.monotonic() + MOUNT_TIMEOUT_S
        while True:
            answer = self._send("POST", path, dict(data))
            if answer.status_code != 400 or not any(word in answer.text for word in WARMING_UP_MESSAGES) or time.monotonic() > until:
                return self._data(answer, path)
            time.sleep(0.05)

    def ensure(self, path: str, data: Mapping[str, Any]) -> AppliedWrite:
        """Bring a path to these values: nothing is written where they are there already."""
        before = self.read(path)
        if before is not None and covers(before, data):
            return AppliedWrite(path, WriteOutcome.UNCHANGED)
        self.write(path, data)
        if before is None:
            return AppliedWrite(path, WriteOutcome.CREATED)
        # Passwords cannot be read back, so they are written each time; what can be read tells whether anything changed.
        return AppliedWrite(path, WriteOutcome.CHANGED if has_changed(before, self.read(path) or {}) else WriteOutcome.UNCHANGED)

    def has_path(self, path: str, data: Mapping[str, Any]) -> bool:
        """Whether this Vault knows what a path is for; that it finds fault with the data tells that it does."""
        answer = self._send("POST", path, dict(data))
        if answer.status_code in {403, 429, 473, 503}:
            self._data(answer, path)
        return answer.status_code not in {404, 405}

    def login(self, path: str, data: Mapping[str, Any]) -> Secret | None:
        """Return the token that a login gives, None where it is refused. The admin's token is not sent."""
        answer = self._send("POST", path, dict(data), anonymous=True)
        return Secret(answer.json()["auth"]["client_token"]) if answer.status_code == 200 else None

    def revoke_token(self, token: Secret) -> None:
        """Revoke a token that was only made to see whether a login works."""
        self._http.post("auth/token/revoke-self", headers={"X-Vault-Token": token.reveal()})

    def _send(self, method: str, path: str, data: Any = None, *, anonymous: bool = False) -> httpx.Response:
        headers = {} if anonymous else {"X-Vault-Token": self._token.reveal()}
        try:
            return self._http.request(method, path, json=data, headers=headers)
        except httpx.HTTPError as error:
            remedy = "Start the embedded stack with `justenough up`, or set VAULT_ADDR (and VAULT_CACERT) to a Vault that runs."
            message = f"Vault at {self.address} did not answer ({type(error).__name__}). {remedy}"
            raise VaultNotReady(message) from error

    def _data(self, answer: httpx.Response, path: str) -> dict[str, Any]:
        if answer.is_success:
            body = answer.json() if answer.content else {}
            return dict(body.get("data") or {})
        if answer.status_code in {429, 473, 503}:
            message = f"Vault at {self.address} is sealed or not active: {self._error_text(answer)}. Unseal it, then run `justenough vault setup` again."
            raise VaultNotReady(message)
        raise SetupFailed(
            path, why=f"Vault answered {answer.status_code}: {self._error_text(answer)}", remedy=_remedy(answer.status_code, path)
        )

    def _error_text(self, answer: httpx.Response) -> str:
        try:
            words = "; ".join(map(str, answer.json().get("errors", ()))) or answer.reason_phrase
        except ValueError:
            words = answer.reason_phrase
        for value in (self._token.reveal(), *self._hide):
            words = words.replace(value, "…")
        return " ".join(words.split())[:500]


def _remedy(status: int, path: str) -> str:
    if status == 403:
        return "The admin token is wrong, has expired, or may not do this: use one with create, read, update, list and sudo on it."
    if status == 404 and not path.startswith("sys/"):
        return f"Nothing is mounted there: add a write to sys/mounts/{path.partition('/')[0]} before it in the catalog's `provision`."
    if path.startswith("database/config/"):
        return "Check that the database runs at the catalog's address and that its login and password are right (SHOP_… for the shop)."
    if status == 405:
        return "This Vault does not offer it here: check the path in the catalog's `provision`."
    if status >= 500:
        return "See Vault's own log, then run `justenough vault setup` again: it goes on where it stopped."
    return "Correct it in the catalog's `provision`, then run `justenough vault setup` again."
