"""The connection to one Vault and our own login there: log in, renew, log in again. Knows nothing of jobs or people."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from justenough.adapters.vault.errors import VaultDenied, VaultRefused, VaultUnavailable, refusal
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.secret import Secret

CONNECT_SECONDS = 2.0
# Longer than Vault's own longest request (default_max_request_duration 10 s), so that Vault's answer comes first.
READ_SECONDS = 12.0
POOL = 64
# A login this young that is denied lacks the right; a new one would lack it too.
RELOGIN_SECONDS = 1.0
RETRY_SECONDS = 2.0
IDLE_SECONDS = 10.0

SAFE_PATH = re.compile(r"[A-Za-z0-9_.:=+@-]+(?:/[A-Za-z0-9_.:=+@-]+)*/?")

Body = Mapping[str, Any]
Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Login:
    """One login of our own: an adapter that carries its token, when it began (monotonic) and how long it lives (seconds)."""

    adapter: RawAdapter
    began: float
    ttl: int


class Connection:
    """One Vault and our login there. Blocking and thread-safe."""

    def __init__(self, address: str, *, namespace: str | None = None, cacert: Path | None = None) -> None:
        self.address = address.rstrip("/")
        self._namespace = namespace
        self._session = _session(cacert)
        self._login: Login | None = None
        self._log_in: Callable[[], Login] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def login_approle(self, role_id: str, secret_id: Secret, *, mount: str = "approle") -> None:
        """Log in; the same pair is used again whenever the login ends."""
        self._begin(lambda: self._approle(role_id, secret_id, mount))

    def login_approle_file(self, path: Path, *, mount: str = "approle") -> None:
        """Log in with a file that holds {"role_id", "secret_id"}; it is read again at each login, so that it may be replaced."""
        self._begin(lambda: self._approle(*_approle_of(path), mount))

    def login_token(self, token: Secret) -> None:
        """Use a token that someone handed in. It is not renewed and cannot be replaced."""
        self._log_in = None
        self._login = Login(self.adapter(token), time.monotonic(), 0)

    def keep_alive(self) -> None:
        """Start the thread that renews the login well before half its life is over, and logs in again where that fails."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._keep, name="vault-keep-alive", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop renewing and close every connection. The login ends by its ttl."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=CONNECT_SECONDS + READ_SECONDS)
            self._thread = None
        self._session.close()

    def ping(self) -> None:
        """Raise VaultSealed or VaultUnavailable where Vault would not serve us."""
        self.call(self.adapter(None), "get", "sys/health", params={"standbyok": "true", "perfstandbyok": "true"})

    def adapter(self, token: Secret | None) -> RawAdapter:
        """Return hvac's adapter for calls under a token, over the shared connections."""
        return RawAdapter(
            base_uri=self.address,
            token=token.reveal() if token else None,
            session=self._session,
            namespace=self._namespace,
            timeout=(CONNECT_SECONDS, READ_SECONDS),
            allow_redirects=False,
        )

    def own(self, method: str, path: str, body: Body | None = None) -> Answer | None:
        """Call under our own login, logging in again once where it is no longer good. Answers as `call`."""
        login = self._login
        if login is None:
            message = "not logged in to Vault"
            raise VaultDenied(message)
        try:
            return self.call(login.adapter, method, path, body)
        except VaultDenied:
            renewed = self._again(login)
            if renewed is None:
                raise
            return self.call(renewed.adapter, method, path, body)

    def call(
        self, adapter: RawAdapter, method: str, path: str, body: Body | None = None, *, params: Mapping[str, str] | None = None
    ) -> Answer | None:
        """Return Vault's answer, {} for an empty one, None for 404; raise one of the package's errors for the rest."""
        options = {key: value for key, value in (("json", body), ("params", params)) if value is not None}
        try:
            response = adapter.request(method, f"/v1/{path}", raise_exception=False, **options)
        except requests.RequestException as error:
            message = f"Vault at {self.address.rpartition('@')[2]} did not answer ({type(error).__name__})"
            raise VaultUnavailable(message) from error
        if response.status_code == 404:
            return None
        answer = _json(response.content)
        if response.status_code >= 300:
            raise refusal(response.status_code, f"{method.upper()} {path}", answer)
        return answer

    def _begin(self, log_in: Callable[[], Login]) -> None:
        with self._lock:
            self._log_in = log_in
            self._login = log_in()

    def _again(self, failed: Login) -> Login | None:
        """Return a login newer than the failed one, or None where a new one would not help."""
        with self._lock:
            if self._login is not failed:
                return self._login
            if self._log_in is None or time.monotonic() - failed.began < RELOGIN_SECONDS:
                return None
            self._login = self._log_in()
            return self._login

    def _approle(self, role_id: str, secret_id: Secret, mount: str) -> Login:
        began = time.monotonic()
        try:
            answer = self.call(
                self.adapter(None), "post", f"auth/{safe_path(mount)}/login", {"role_id": role_id, "secret_id": secret_id.reveal()}
            )
        except VaultRefused as error:
            message = "Vault refused the AppRole login: its role id or secret id is not valid"
            raise VaultDenied(message) from error
        auth = (answer or {}).get("auth") or {}
        if not auth.get("client_token"):
            message = f"Vault has no AppRole login at auth/{mount}"
            raise VaultRefused(message)
        return Login(self.adapter(Secret(auth["client_token"])), began, int(auth.get("lease_duration") or 0))

    def _keep(self) -> None:
        pause = self._pause()
        while not self._stop.wait(pause):
            try:
                self._renew()
                pause = self._pause()
            except (RetryLater, GiveUp):
                # Each call that needs the login says so itself; here it is only tried again.
                pause = RETRY_SECONDS

    def _pause(self) -> float:
        login = self._login
        return max(login.ttl / 3, 0.1) if login and login.ttl else IDLE_SECONDS

    def _renew(self) -> None:
        """Renew; where that is not allowed, or yields less than half of what a login gives, log in anew."""
        login = self._login
        if login is None or self._log_in is None or not login.ttl:
            return
        with suppress(VaultDenied, VaultRefused):
            auth = (self.call(login.adapter, "post", "auth/token/renew-self", {}) or {}).get("auth") or {}
            if int(auth.get("lease_duration") or 0) >= login.ttl / 2:
                return
        with self._lock:
            if self._login is login:
                self._login = self._log_in()


def safe_path(path: str) -> str:
    """Return a path that stays what it says (no query, no escapes, no way up); raise VaultRefused for any other."""
    if not SAFE_PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
        message = "not a Vault path"
        raise VaultRefused(message)
    return path


def _session(cacert: Path | None) -> requests.Session:
    session = requests.Session()
    # Neither proxies nor certificates nor .netrc from the environment: the settings say where Vault is.
    session.trust_env = False
    session.verify = str(cacert) if cacert else True
    adapter = HTTPAdapter(pool_connections=2, pool_maxsize=POOL, max_retries=0)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _approle_of(path: Path) -> tuple[str, Secret]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        return str(raw["role_id"]), Secret(str(raw["secret_id"]))
    except (OSError, ValueError, KeyError, TypeError):
        message = f'{path} does not hold {{"role_id", "secret_id"}}; `justenough vault setup` writes it'
        raise VaultDenied(message) from None  # The cause would carry the file's text.


def _json(content: bytes) -> Answer:
    try:
        answer = json.loads(content) if content else {}
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) else {}
