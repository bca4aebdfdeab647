"""Reads and writes Vault as its administrator: compares each write with the current value, and names path and remedy in each failure.

Holds the admin token for one setup. No error message contains it or a secret that was written.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import ssl
import string
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import write_private
from justenough.adapters.vault.connection import forwarding_headers, parse_answer
from justenough.adapters.vault.errors import CHECK_ADDRESS, is_plain_http_refused
from justenough.domain.core.errors import GiveUp, InvalidInput, Problem, RetryLater
from justenough.domain.core.secret import Secret, why_no_token
from worker.provisioning.compare import ROLE_PATH, covers, has_changed, unknown_fields_note

REQUEST_TIMEOUT_S = 15.0
"""Seconds per request."""
FIRST_ANSWER_TIMEOUT_S = 5.0
"""Seconds until setup gives up on a Vault that does not answer at all."""
MOUNT_TIMEOUT_S = 10.0
"""How long a newly mounted engine may take to accept reads and writes."""
NOT_ACTIVE_STATUSES = frozenset({307, 472, 473, 503})
NOT_ACTIVE_MESSAGE = re.compile("local node not active|leadership lost|node is not the leader")
"""Matches errors with status 400 or 500 if a standby knows no active node, because one is being elected, or the active node was replaced while
it wrote.
"""
PATH_IN_USE = "path is already in use"
WRITE_CONFLICT = "transaction commit failed"
"""What OpenBao 2.7 answers if somebody else wrote to the same path at the same moment."""
WARMING_UP_MESSAGES = ("Upgrading from non-versioned to versioned", "Waiting for the primary to upgrade")
ALPHANUMERIC = string.ascii_letters + string.digits


class WriteOutcome(StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    """The path has a different value, which was left unchanged; the note gives the reason."""
    MISSING = "missing"
    """Vault has nothing at the path, and setup does not write it; the note says what needs it."""


@dataclass(frozen=True, slots=True)
class AppliedWrite:
    path: str
    outcome: WriteOutcome
    note: str = ""


class SetupFailed(GiveUp):
    """A step failed. The message has the path in Vault, Vault's own error and the remedy."""

    def __init__(self, path: str, *, why: str, remedy: str) -> None:
        self.path = path
        super().__init__(f"{path}: {why}. {remedy}")


class VaultNotReady(RetryLater):
    """Vault does not answer, somebody else answers in its place, it is sealed, or it refuses more requests for now."""


def admin_token() -> Secret | None:
    """Return the administrator's token in VAULT_TOKEN; None if it is not set. Raises InvalidInput if it cannot be a token."""
    token = os.environ.get("VAULT_TOKEN")
    if token and (why := why_no_token(token)):
        raise InvalidInput("VAULT_TOKEN", (Problem("", why),))
    return Secret(token) if token else None


class AdminClient:
    """A context manager over one connection. Texts in `hide` do not appear in errors."""

    def __init__(
        self, address: str, token: Secret, *, namespace: str | None = None, cacert: Path | None = None, hide: Iterable[str] = ()
    ) -> None:
        self.address = address.rstrip("/")
        self.namespace = namespace
        self._token = token
        self._hide = tuple(sorted({value for value in hide if len(value) >= 4}, key=len, reverse=True))
        headers = {"X-Vault-Request": "true"} | ({"X-Vault-Namespace": namespace} if namespace else {})
        try:
            # Without TLS, do not load certificates, which is slow.
            verify = ssl.create_default_context(cafile=cacert) if cacert else self.address.lower().startswith("https:")
            self._http = httpx.Client(
                base_url=f"{self.address}/v1/", headers=headers, verify=verify, timeout=FIRST_ANSWER_TIMEOUT_S, trust_env=False
            )
        except OSError as error:
            raise SetupFailed(
                "VAULT_CACERT", why=f"{cacert} has no certificates that can be read ({error})", remedy="Correct it."
            ) from error
        except httpx.InvalidURL as error:
            raise SetupFailed("VAULT_ADDR", why=f"{self.address} is not a valid address ({error})", remedy="Correct it.") from error

    @classmethod
    def of(cls, settings: Settings, token: Secret, **options: Any) -> Self:
        return cls(settings.vault_addr, token, namespace=settings.vault_namespace, cacert=settings.vault_cacert, **options)

    def __enter__(self) -> Self:
        response = self._send("GET", "sys/health", anonymous=True, **{"X-Vault-Namespace": ""})
        with suppress(ValueError):
            self._http.headers.update(forwarding_headers(response.json()))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def read(self, path: str) -> dict[str, Any] | None:
        """Return the data at a path; None if there is none. Raises SetupFailed, VaultNotReady."""
        response = self._send("GET", path)
        return None if response.status_code == 404 else self._data(response, path)

    def list(self, path: str) -> tuple[str, ...]:
        """Return the names below a path. Raises SetupFailed, VaultNotReady."""
        response = self._send("LIST", path)
        return () if response.status_code == 404 else tuple(self._data(response, path).get("keys", ()))

    def write(self, path: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Write data to a path and return Vault's answer. Raises SetupFailed, VaultNotReady."""
        return self._data(self._send("POST", path, dict(data)), path)

    def ensure(self, path: str, data: Mapping[str, Any]) -> AppliedWrite:
        """Ensure that a path has these values; write only if it does not have them yet. Raises SetupFailed, VaultNotReady."""
        before = self.read(path)
        if before is not None and covers(before, data):
            return AppliedWrite(path, WriteOutcome.UNCHANGED)
        self.write(path, data)
        if before is None and not ROLE_PATH.search(path):
            return AppliedWrite(path, WriteOutcome.CREATED)
        after = self.read(path) or {}
        note = unknown_fields_note(path, after, data)
        if before is None:
            return AppliedWrite(path, WriteOutcome.CREATED, note)
        # Vault never returns a password, so it is written each time. The readable values show whether anything changed.
        return AppliedWrite(path, WriteOutcome.CHANGED if has_changed(before, after) else WriteOutcome.UNCHANGED, note)

    def write_unless(self, listed: str, path: str, data: Mapping[str, Any]) -> AppliedWrite:
        """Write, unless the path `listed` has any names. Raises SetupFailed, VaultNotReady."""
        if self.list(listed):
            return AppliedWrite(path, WriteOutcome.UNCHANGED)
        self.write(path, data)
        return AppliedWrite(path, WriteOutcome.CREATED)

    def write_once(self, path: str, data: Mapping[str, Any]) -> AppliedWrite:
        """Write, with `${random}` filled in, unless the path exists. Raises SetupFailed, VaultNotReady."""
        if self.read(path) is not None:
            return AppliedWrite(path, WriteOutcome.UNCHANGED)
        return self.ensure(path, json.loads(self.fill_random(json.dumps(data))))

    def query(self, path: str, data: Mapping[str, Any]) -> dict[str, Any]:
        """Return Vault's answer to a request that changes nothing but is not a GET. Raises SetupFailed, VaultNotReady."""
        return self._data(self._send("POST", path, dict(data)), path)

    def fill_random(self, text: str) -> str:
        """Replace each `${random}` by a new text of 44 random characters: 262 bits that need no escaping in JSON or a URL.

        They are also the base64 of 33 bytes, the form that webhooks need after `whsec_`.
        """
        first, *parts = text.split("${random}")
        return first + "".join("".join(secrets.choice(ALPHANUMERIC) for _ in range(44)) + part for part in parts)

    def make_private(self, file: Path) -> None:
        file.chmod(0o600)

    def write_login(self, role: str, file: Path, *, role_id: str, current: Mapping[str, Any]) -> None:
        """Write a login file with a new secret id of an AppRole. `current`: the file's content. Raises SetupFailed, VaultNotReady."""
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # If the file cannot be written, Vault must not create a secret id, which would stay valid unseen.
            write_private(file, json.dumps(current))
            made = self.write(f"{role}/secret-id", {"metadata": json.dumps({"made_by": "justenough vault setup"})})
            write_private(file, json.dumps({"role_id": role_id, "secret_id": str(made["secret_id"])}))
        except OSError as error:
            remedy = "Run this where it can, or set JUSTENOUGH_WORKER_APPROLE and JUSTENOUGH_CONSOLE_APPROLE to other files."
            raise SetupFailed(str(file), why=f"it cannot be written ({error.strerror})", remedy=remedy) from error

    def has_path(self, path: str, data: Mapping[str, Any]) -> bool:
        """Whether this Vault serves a path. An error about the data means that it does. Raises SetupFailed, VaultNotReady."""
        response = self._send("POST", path, dict(data))
        if response.status_code in {403, 429} or is_inactive(response.status_code, response.text):
            self._data(response, path)
        return response.status_code not in {404, 405}

    def login(self, path: str, data: Mapping[str, Any]) -> Secret | None:
        """Log in without the admin token; return the new token, or None if the login is refused."""
        response = self._send("POST", path, dict(data), anonymous=True)
        return Secret(response.json()["auth"]["client_token"]) if response.status_code == 200 else None

    def revoke_token(self, token: Secret) -> None:
        """Revoke a token of a login that was only a test."""
        self._send("POST", "auth/token/revoke-self", anonymous=True, **{"X-Vault-Token": token.reveal()})

    def _send(self, method: str, path: str, data: Any = None, *, anonymous: bool = False, **headers: str) -> httpx.Response:
        """Send a request, and repeat it for up to 10 s while Vault prepares a newly mounted engine."""
        headers |= {} if anonymous else {"X-Vault-Token": self._token.reveal()}
        until = time.monotonic() + MOUNT_TIMEOUT_S
        try:
            # A name may contain any character, also one that would end a URL's path.
            while (answer := self._http.request(method, quote(path), json=data, headers=headers)).status_code == 400:
                if not any(text in answer.text for text in WARMING_UP_MESSAGES) or time.monotonic() > until:
                    break
                time.sleep(0.05)
        except httpx.HTTPError as error:
            is_late = isinstance(error, httpx.TimeoutException)
            reason = "no answer in time" if is_late else str(error) or type(error).__name__
            remedy = "Start the embedded stack with `justenough up`, or set VAULT_ADDR (and VAULT_CACERT) to a running Vault."
            if is_late and path.startswith("database/config/"):
                remedy = f"For {path} it logs in to the database: check that the database answers, then run the same command again."
            message = f"Vault at {self.address} did not answer ({reason}). {remedy}"
            raise VaultNotReady(message) from error
        if is_plain_http_refused(answer.status_code, answer.content):
            raise VaultNotReady(f"Vault at {self.address} speaks TLS: write VAULT_ADDR with https://.")
        if parse_answer(answer.status_code, answer.content) is None:
            raise VaultNotReady(f"{method} {path}: {answer.status_code}: {self.address} does not answer as Vault does; {CHECK_ADDRESS}.")
        self._http.timeout = httpx.Timeout(REQUEST_TIMEOUT_S)
        return answer

    def _data(self, response: httpx.Response, path: str) -> dict[str, Any]:
        if response.is_success:
            body = response.json() if response.content else {}
            return dict(body.get("data") or {})
        try:
            error = "; ".join(map(str, response.json().get("errors", ()))) or response.reason_phrase
        except ValueError:
            error = response.reason_phrase
        for value in (self._token.reveal(), *self._hide):
            error = error.replace(value, "…")
        error = " ".join(error.split())[:500]
        if response.status_code == 429:
            remedy = "Raise its quota (bao list sys/quotas/rate-limit), or run the same command again later: it continues where it stopped."
            raise VaultNotReady(f"Vault at {self.address} refuses more requests for now: {error}. {remedy}")
        if is_inactive(response.status_code, error):
            remedy = "Unseal it, or wait until a node is active; then run the same command again: it continues where it stopped."
            raise VaultNotReady(f"Vault at {self.address} is sealed or not active: {error}. {remedy}")
        raise SetupFailed(path, why=f"Vault answered {response.status_code}: {error}", remedy=_remedy(response.status_code, path, error))


def is_inactive(status: int, text: str) -> bool:
    """Whether an answer says that the node is sealed, or that it is not the active one and cannot forward to it."""
    return status in NOT_ACTIVE_STATUSES or NOT_ACTIVE_MESSAGE.search(text) is not None


def _remedy(status: int, path: str, error: str) -> str:
    if status == 403:
        return "The admin token is wrong, has expired or lacks the capabilities: use one with create, read, update, list and sudo on this path."
    if status == 404 and not path.startswith("sys/"):
        return f"No engine is mounted there: add a write to sys/mounts/{path.partition('/')[0]} before it in the catalog's `provision`."
    if path.startswith("database/config/") and WRITE_CONFLICT not in error:
        return "Check that the database runs at the catalog's address and that its user and password are right."
    if status == 405:
        return "This Vault does not support this operation: check the path in the catalog's `provision`."
    if status >= 500:
        return "See Vault's own log, then run `justenough vault setup` again: it continues where it stopped."
    where = "in Vault, or in the list of people" if path.startswith("identity/") else "in the catalog's `provision`"
    what = "If another `vault apply` mounts it right now, wait for that; otherwise correct it" if PATH_IN_USE in error else "Correct it"
    return f"{what} {where}, then run the same command again."
