"""An HTTP gate in front of Vault: a worker speaks to Vault through it, and a test holds a request, or its answer, for as long as it likes.

A request that is held when its sender dies goes on to Vault when it is released, as one that was in flight would.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from tests.support.shop import Login

JOB = re.compile(r"j-[a-z0-9]{1,8}-[0-9a-z]{26}")
HELD_AT_MOST = 600.0
"""Seconds, so that a test that forgot to release does not hang forever."""


@dataclass(eq=False)
class Hold:
    """Held requests of one job, or of all jobs."""

    method: str
    path: re.Pattern[str]
    job: str | None
    answer: bool
    """Whether Vault gets the request and its response is held, or the request itself is held."""
    once: bool
    _came: threading.Event = field(default_factory=threading.Event)
    _go: threading.Event = field(default_factory=threading.Event)
    _passed: threading.Event = field(default_factory=threading.Event)
    _taken: bool = False

    def until_held(self, within: float = 180) -> Hold:
        """Wait until a request is held. Fails if none arrives."""
        assert self._came.wait(within), f"no {self.method} {self.path.pattern} of {self.job} came in {within:.0f} s"
        return self

    def release(self) -> None:
        """Release the held requests and all later ones."""
        self._go.set()

    def until_answered(self, within: float = 180) -> None:
        """Wait until the answers to the held requests have been sent on."""
        assert self._passed.wait(within), "what was released has not been answered"

    def try_take(self, method: str, path: str, job: str | None) -> bool:
        """Whether to hold a request."""
        fits = not self._go.is_set() and method == self.method and self.path.search(path) and self.job in {None, job}
        if not fits or (self.once and self._taken):
            return False
        self._taken = True
        return True

    def stop_here(self) -> None:
        """Block the calling thread until the test releases it."""
        self._came.set()
        self._go.wait(HELD_AT_MOST)

    def note_answered(self) -> None:
        """Record that the answer to a held request has been sent on, or that its client is gone."""
        self._passed.set()


class Gate:
    """Forwards requests to one Vault. Knows the job of each token, because it saw its creation."""

    def __init__(self, behind: str) -> None:
        where = urlsplit(behind)
        self._behind = (str(where.hostname), int(where.port or 80))
        self._holds: list[Hold] = []
        self._jobs: dict[str, str] = {}
        self._logins: dict[str, list[Login]] = {}
        self._sent: set[tuple[str | None, str]] = set()
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, name="gate", daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def hold(self, path: str, *, method: str = "GET", job: str | None = None, answer: bool = False, once: bool = False) -> Hold:
        """Hold requests whose path matches this expression, from now on; `job`: only those under this job's token, lease or name."""
        hold = Hold(method, re.compile(path), job, answer=answer, once=once)
        with self._lock:
            self._holds.append(hold)
        return hold

    def release_all(self) -> None:
        """Release everything and hold nothing more."""
        with self._lock:
            holds, self._holds = self._holds, []
        for hold in holds:
            hold.release()

    def close(self) -> None:
        """Stop forwarding."""
        self.release_all()
        self._server.shutdown()
        self._server.server_close()

    def has_sent(self, job: str, path: str) -> bool:
        """Whether a request of a job to this path was forwarded to Vault."""
        with self._lock:
            return (job, path) in self._sent

    def logins(self, job: str) -> list[Login]:
        """Return the database logins that Vault issued to a job, received by a worker or not."""
        with self._lock:
            return list(self._logins.get(job, ()))

    def _job_of(self, path: str, token: str) -> str | None:
        named = JOB.search(path)
        if named:
            return named[0]
        with self._lock:
            by_lease = next((job for handle, job in self._jobs.items() if handle in path), None)
            return by_lease or self._jobs.get(token)

    def _learn(self, job: str | None, content: bytes) -> None:
        """Record the job of a token, lease or login that Vault just issued."""
        if job is None:
            return
        with suppress(ValueError, AttributeError):
            answer: dict[str, Any] = json.loads(content)
            handles = ((answer.get("auth") or {}).get("client_token"), answer.get("lease_id"))
            with self._lock:
                self._jobs.update({str(handle): job for handle in handles if handle})
                given = answer.get("data") or {}
                if "username" in given:
                    self._logins.setdefault(job, []).append(Login(given["username"], given["password"]))

    def _hold_for(self, method: str, path: str, job: str | None) -> Hold | None:
        with self._lock:
            return next((hold for hold in self._holds if hold.try_take(method, path, job)), None)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gate = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body leave in one packet: a delayed acknowledgement between them would cost 40 ms.
            wbufsize = -1

            def handle_one_request(self) -> None:
                with suppress(OSError):
                    self.raw_requestline = self.rfile.readline(65537)
                    if not self.raw_requestline or not self.parse_request():
                        self.close_connection = True
                        return
                    self._pass_on()

            def _pass_on(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                job = gate._job_of(self.path, self.headers.get("X-Vault-Token", ""))
                hold = gate._hold_for(self.command, self.path, job)
                if hold and not hold.answer:
                    hold.stop_here()
                with gate._lock:
                    gate._sent.add((job, self.path))
                try:
                    status, kind, content = gate._ask_vault(self.command, self.path, body, dict(self.headers))
                except (OSError, http.client.HTTPException):
                    # Vault is not there: the client sees a connection that ends, as it would without a gate.
                    self.close_connection = True
                    return
                gate._learn(job, content)
                if hold and hold.answer:
                    hold.stop_here()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", kind)
                    if status != HTTPStatus.NO_CONTENT:
                        self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                    self.wfile.flush()
                finally:
                    # Not earlier: a suspended client that is resumed before the answer arrives considers it lost.
                    if hold:
                        hold.note_answered()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Log nothing: a path can contain an accessor."""

        return Handler

    def _ask_vault(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection(*self._behind, timeout=60)
        try:
            kept = {name: value for name, value in headers.items() if name.lower() not in {"host", "connection", "accept-encoding"}}
            connection.request(method, path, body=body or None, headers=kept)
            answer = connection.getresponse()
            return answer.status, answer.headers.get("Content-Type", "application/json"), answer.read()
        finally:
            connection.close()
