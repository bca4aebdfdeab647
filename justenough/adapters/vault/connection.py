"""The connection to one Vault and our own login there: log in, renew, log in again. Does not know jobs or people."""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import requests
from hvac.adapters import RawAdapter
from requests.adapters import HTTPAdapter

from justenough.adapters.vault.errors import (
    CHECK_ADDRESS,
    VaultDenied,
    VaultLoginDenied,
    VaultRefused,
    VaultUnavailable,
    is_plain_http_refused,
    refusal,
    unreachable,
)
from justenough.adapters.vault.own_login import (
    AppRoleLogin,
    CertificateLogin,
    OwnLogin,
    TokenLogin,
    login_request,
    read_login,
    read_secret_file,
)
from justenough.adapters.vault.server_clock import RESOLUTION_S, ServerClock
from justenough.domain.core.errors import GiveUp, RetryLater
from justenough.domain.core.secret import Secret

CONNECT_TIMEOUT_S = 2.0
# Longer than Vault's longest request (default_max_request_duration 10 s), so that Vault's answer comes first.
READ_TIMEOUT_S = 12.0
POOL_SIZE = 64
LINK_LIMITS = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4, "TCP_USER_TIMEOUT": 5_000}
"""Without these, a call on a pooled connection that a firewall has forgotten waits for READ_TIMEOUT_S. Only Linux has all of them."""
LINK_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *((socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in LINK_LIMITS.items() if hasattr(socket, name)),
)
FIRST_LOGIN_TIMEOUT_S = 6.0
"""Short, so that a starting process soon reports that Vault does not answer, and can be restarted."""
# If a login this young is denied, it lacks the permission; a new login would lack it too.
MIN_RELOGIN_AGE_S = 1.0
RETRY_INTERVAL_S = 2.0
LOOKUP_INTERVAL_S = 10.0
"""Maximum number of seconds between two look-ups of our own login, which also show Vault's time."""

WRONG_LOGIN = {
    "approle": "its role id or secret id is not valid, or Vault has locked the role for 15 minutes after wrong ones",
    "kubernetes": "the token of the service account, or the role, is not valid",
    "jwt": "the token or the role is not valid",
    "cert": "no role accepts the certificate",
}
"""By login method, what a refusal means."""
PROVING_STATUSES = frozenset({200, 404})
"""Statuses of answers whose body callers trust."""
ANSWER_KEYS = frozenset({"errors", "data", "warnings"})
"""Keys of Vault's answers with status 404; each answer has at least one of them."""
# More than any index that a node has stored.
FUTURE_INDEX = str(2**64 - 1)
SAFE_PATH = re.compile(r"[A-Za-z0-9_.:=+@-]+(?:/[A-Za-z0-9_.:=+@-]+)*/?")

Body = Mapping[str, Any]
VaultAnswer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LiveLogin:
    """One login of our own: an adapter that carries its token, when it began (monotonic) and how long it lives (seconds; 0: another program renews it)."""

    adapter: RawAdapter
    began: float
    ttl: int


def forwarding_headers(health: VaultAnswer) -> dict[str, str]:
    """Return the headers with which OpenBao's standby nodes forward a call to the active node, by an answer of sys/health.

    Without them, standby nodes answer reads from their own copy, which may be out of date (OpenBao 2.7): they do not know a credential that
    was just issued, and revoking it there succeeds without effect. Vault Enterprise has a different, signed index and needs no headers.
    """
    if not health.get("cluster_id") or health.get("enterprise") or "+ent" in str(health.get("version")):
        return {}
    index = json.dumps({"cluster": health["cluster_id"], "value": FUTURE_INDEX}).encode()
    return {"X-Vault-Index": base64.b64encode(index).decode(), "X-Vault-Inconsistent": "forward-active-node"}


def parse_answer(status: int, content: bytes) -> VaultAnswer | None:
    """Return the object in an answer, {} if there is none; None if somebody else answers in Vault's place."""
    answer: object = None
    with suppress(ValueError):
        answer = json.loads(content or "{}")
    if isinstance(answer, dict) and (status != 404 or answer.keys() & ANSWER_KEYS):
        return answer
    return None if status in PROVING_STATUSES else {}


class _LimitedLinks(HTTPAdapter):
    """Gives each connection LINK_OPTIONS."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options, socket_options=LINK_OPTIONS)


class VaultConnection:
    """One Vault and our login there. Blocking and thread-safe."""

    def __init__(self, address: str, *, namespace: str | None = None, cacert: Path | None = None) -> None:
        self.address = address.rstrip("/")
        self._namespace = namespace
        self._session = requests.Session()
        # No proxies, certificates or .netrc from the environment: the settings name Vault's address.
        self._session.trust_env = False
        self._session.verify = str(cacert) if cacert else True
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _LimitedLinks(pool_connections=2, pool_maxsize=POOL_SIZE, max_retries=0))
        self._login: LiveLogin | None = None
        self._unwrapped: dict[str, Secret] = {}
        """The newest secret id, by the wrapping token from which it came."""
        self.clock = ServerClock()
        self._log_in: Callable[[], LiveLogin] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def login_from_file(self, path: Path) -> None:
        """Log in as a login file says (own_login.py). It is read again at each login, so it may be replaced."""
        with self._lock:
            self._log_in = partial(self._log_in_from_file, path)
            self._login = self._log_in_from_file(path, read_timeout_s=FIRST_LOGIN_TIMEOUT_S)

    @property
    def login_identity(self) -> object:
        """Our own login; a different object after each new login. Anything issued under an earlier login may end with it.

        None: not logged in.
        """
        return self._login

    def login_token(self, token: Secret) -> None:
        """Use this token. It is not renewed, and no new login replaces it."""
        self._log_in = None
        self._login = LiveLogin(self.adapter(token), time.monotonic(), 0)

    def keep_alive(self) -> None:
        """Start the thread that notes Vault's time, and renews the login well before half its ttl has passed or logs in again."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._renew_until_stopped, name="vault-keep-alive", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop renewing and close every connection. The login ends by its ttl."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=CONNECT_TIMEOUT_S + READ_TIMEOUT_S)
            self._thread = None
        self._session.close()

    def adapter(self, token: Secret | None) -> RawAdapter:
        """Return hvac's adapter for calls under a token, over the shared connections."""
        return self._adapter(token, self._session)

    def _adapter(self, token: Secret | None, session: requests.Session, *, read_timeout_s: float = READ_TIMEOUT_S) -> RawAdapter:
        return RawAdapter(
            base_uri=self.address,
            token=token.reveal() if token else None,
            session=session,
            namespace=self._namespace,
            timeout=(CONNECT_TIMEOUT_S, read_timeout_s),
            allow_redirects=False,
        )

    def forward_to_active_node(self, *, read_timeout_s: float) -> None:
        """Have standby nodes forward each call from now on. Raises like `call`, and VaultUnavailable if a node would answer itself."""
        anywhere = self._adapter(None, self._session, read_timeout_s=read_timeout_s)
        anywhere.namespace = None  # Namespaces do not have this path.
        health = self.call(anywhere, "get", "sys/health", params={"standbyok": "true", "perfstandbyok": "true"}) or {}
        if health.get("performance_standby"):
            raise VaultUnavailable(
                f"Vault at {self.address.rpartition('@')[2]} is a performance standby, whose answers may be out of date",
                remedy="set VAULT_ADDR to the address of the active node",
            )
        self._session.headers.update(forwarding_headers(health))

    def call_own(self, method: str, path: str, body: Body | None = None) -> VaultAnswer | None:
        """Call under our own login, logging in again once if it is no longer valid. Returns like `call`."""
        login = self._login
        if login is None:
            raise VaultDenied("not logged in to Vault")
        try:
            return self.call(login.adapter, method, path, body)
        except VaultDenied:
            with self._lock:
                newer = self._login
                if newer is None or newer is login:
                    if self._log_in is None or time.monotonic() - login.began < MIN_RELOGIN_AGE_S:
                        raise
                    newer = self._login = self._log_in()
            return self.call(newer.adapter, method, path, body)

    def read_data(self, method: str, path: str, body: Body | None = None) -> VaultAnswer:
        """Call under our own login and return the answer's `data`; empty if it has none."""
        return (self.call_own(method, path, body) or {}).get("data") or {}

    def call(
        self, adapter: RawAdapter, method: str, path: str, body: Body | None = None, *, params: Mapping[str, str] | None = None
    ) -> VaultAnswer | None:
        """Return Vault's answer, {} if it is empty, None for 404. Raises one of the package's errors for any other status of 300 or above, and
        VaultUnavailable if somebody else answers in Vault's place.
        """
        options = {key: value for key, value in (("json", body), ("params", params)) if value is not None}
        try:
            response = adapter.request(method, f"/v1/{path}", raise_exception=False, **options)
        except OSError as error:  # A requests.RequestException, or the CA's file cannot be read.
            raise unreachable(self.address, error) from error
        if is_plain_http_refused(response.status_code, response.content):
            raise VaultUnavailable(f"Vault at {self.address.rpartition('@')[2]} speaks TLS", remedy="write VAULT_ADDR with https://")
        answer = parse_answer(response.status_code, response.content)
        if answer is None:
            # A proxy's own page, for example: it must not be mistaken for Vault's answer that something is done, or does not exist.
            what = f"{method.upper()} {path}: {response.status_code}"
            raise VaultUnavailable(f"{what}: {self.address.rpartition('@')[2]} does not answer as Vault does", remedy=CHECK_ADDRESS)
        if response.status_code == 404:
            return None
        if response.status_code >= 300:
            raise refusal(response.status_code, f"{method.upper()} {path}", answer)
        return answer

    def _log_in_from_file(self, path: Path, *, read_timeout_s: float = READ_TIMEOUT_S) -> LiveLogin:
        began, login = time.monotonic(), read_login(path)
        self.forward_to_active_node(read_timeout_s=read_timeout_s)
        if isinstance(login, TokenLogin):
            token, ttl = read_secret_file(login.token_file), 0
        else:
            where, body = login_request(login, secret_id=self._secret_id(login) if isinstance(login, AppRoleLogin) else "")
            try:
                with self._login_session(login) as session:
                    answer = self.call(self._adapter(None, session, read_timeout_s=read_timeout_s), "post", where, body)
            except (VaultDenied, VaultRefused) as error:
                raise VaultLoginDenied(f"Vault refused the login: {WRONG_LOGIN[login.method]} ({error})") from error
            auth = (answer or {}).get("auth") or {}
            if not auth.get("client_token"):
                raise VaultRefused(f"Vault has no login at {where}")
            token, ttl = auth["client_token"], int(auth.get("lease_duration") or 0)
        made = LiveLogin(self.adapter(Secret(token)), began, ttl)
        try:
            self._look_up(made)
        except RetryLater:
            # A login that replaces another one can do without the time, and another attempt would leave one more login in Vault.
            if self._login is None:
                raise
        return made

    def _secret_id(self, login: AppRoleLogin) -> str:
        """Return the secret id, unwrapped once for each wrapping token. Raises VaultLoginDenied if that is no longer possible."""
        if login.secret_id is not None:
            return login.secret_id.get_secret_value()
        if login.secret_id_file is not None:
            return read_secret_file(login.secret_id_file)
        assert login.wrapped_secret_id is not None
        wrapping = login.wrapped_secret_id.get_secret_value()
        if wrapping not in self._unwrapped:
            try:
                data = (self.call(self.adapter(Secret(wrapping)), "post", "sys/wrapping/unwrap", {}) or {}).get("data") or {}
            except (VaultDenied, VaultRefused) as error:
                raise VaultLoginDenied(
                    "the wrapped secret id cannot be unwrapped: it has expired, somebody else has unwrapped it, or an answer to us was lost; "
                    "revoke it, and find out in Vault's audit log who has unwrapped it"
                ) from error
            self._unwrapped = {wrapping: Secret(str(data.get("secret_id") or ""))}
        return self._unwrapped[wrapping].reveal()

    @contextmanager
    def _login_session(self, login: OwnLogin) -> Iterator[requests.Session]:
        """Yield the connection over which to log in: a shared one, or one that presents the client certificate."""
        if not isinstance(login, CertificateLogin):
            yield self._session
            return
        with requests.Session() as session:
            session.trust_env, session.verify, session.cert = False, self._session.verify, login.files
            yield session

    def _renew_until_stopped(self) -> None:
        pause = self._lookup_interval()
        while not self._stop.wait(pause):
            try:
                self._renew_login()
                pause = self._lookup_interval()
            except (RetryLater, GiveUp):
                # Each call that needs the login reports its own error.
                pause = RETRY_INTERVAL_S

    def _lookup_interval(self) -> float:
        login = self._login
        return max(min(login.ttl / 3, LOOKUP_INTERVAL_S), 0.1) if login and login.ttl else LOOKUP_INTERVAL_S

    def _renew_login(self) -> None:
        """Renew the login before more than a third of its ttl has passed. Log in again if Vault refuses that, or grants less than half the ttl of a
        new login.
        """
        login = self._login
        if login is None or self._log_in is None:
            return
        try:
            left: float = self._look_up(login)
        except RetryLater:
            # The login lives at least this long, and may have ended by the next attempt.
            left = login.ttl - (time.monotonic() - login.began)
        left_at_next_look = left - RESOLUTION_S - self._lookup_interval()
        if not login.ttl or left_at_next_look > login.ttl * 2 / 3:
            return
        with suppress(VaultDenied, VaultRefused):
            auth = (self.call(login.adapter, "post", "auth/token/renew-self", {}) or {}).get("auth") or {}
            if int(auth.get("lease_duration") or 0) >= login.ttl / 2:
                return
        with self._lock:
            if self._login is login:
                self._login = self._log_in()

    def _look_up(self, login: LiveLogin) -> int:
        """Return the seconds that a login has left, or 0 if Vault does not say. Note Vault's time from this answer.

        The `Date` of an answer is not the time by which leases end: a standby that forwards a request dates the answer by its own clock.
        """
        sent, left = self.clock.steady(), 0
        # A token may lack the right, and a root token never expires.
        with suppress(VaultDenied, VaultRefused, TypeError, ValueError):
            found = (self.call(login.adapter, "get", "auth/token/lookup-self") or {}).get("data") or {}
            left = int(found.get("ttl") or 0)
            # The active node computes the ttl from its own time, rounded to a second.
            self.clock.note(datetime.fromisoformat(str(found.get("expire_time"))).timestamp() - left - RESOLUTION_S / 2, sent=sent)
        return left


def safe_path(path: str) -> str:
    """Return the path if it has no query, no escapes and no `..`. Raises VaultRefused for any other path."""
    if not SAFE_PATH.fullmatch(path) or any(part in {".", ".."} for part in path.split("/")):
        raise VaultRefused("the path is not valid in Vault: it has an empty part, `.`, `..`, a query or an escape")
    return path
