"""The HTTP client of the job's broker: over its Unix socket, else on loopback with the job's token."""

from __future__ import annotations

import http.client
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from justenough_job.errors import OutsideJob, Unavailable, refusal_of
from justenough_job.jsonrpc import stream_events

RETRY_TIMEOUT_S = 15.0
"""Seconds to retry while a server is unreachable or the broker limits the rate."""
RETRY_INTERVAL_S = 0.5
SILENCE_TIMEOUT_S = 180.0
"""Seconds without data during a tool call; while it waits for people, the broker reports progress every few seconds."""
SANDBOX_SOCKET = "/run/justenough/broker.sock"
"""The socket's path in the sandbox."""
ANSWER_TIMEOUT_S = 45.0
"""Seconds that an answer may take, not counting the wait for people: Vault may take 10 s, and a revocation must be confirmed."""


@dataclass(frozen=True)
class BrokerClient:
    """The client of this job's broker. The repr omits the token."""

    socket: str = ""
    host: str = ""
    port: int = 0
    token: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> BrokerClient:
        """Return the broker that the environment names. Raises OutsideJob."""
        variables = os.environ if environment is None else environment
        if variables.get("JUSTENOUGH_BROKER"):
            return cls(socket=variables["JUSTENOUGH_BROKER"])
        if variables.get("JUSTENOUGH_BROKER_URL"):
            url = urlsplit(variables["JUSTENOUGH_BROKER_URL"])
            return cls(host=url.hostname or "", port=url.port or 80, token=variables.get("JUSTENOUGH_BROKER_TOKEN", ""))
        # MCP clients, for example, start their servers without these variables.
        # On a worker's machine, outside the sandbox, only root may look into this folder.
        with suppress(OSError):
            if environment is None and Path(SANDBOX_SOCKET).is_socket():
                return cls(socket=SANDBOX_SOCKET)
        message = (
            "this program is not running as a JustEnough job: neither JUSTENOUGH_BROKER nor JUSTENOUGH_BROKER_URL is set. "
            "Launch it with `justenough job run`, and pass the job's variables on to programs that it starts"
        )
        raise OutsideJob(message)

    def call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, wait: float | None = None, until: float = 0.0
    ) -> tuple[int, dict[str, Any]]:
        """Return an answer's status and body, or raise the error for its status.

        `wait`: the most seconds for which the broker waits for people in one answer; None if the call takes no `wait`. `until` (monotonic time):
        the end of the whole wait. While a server is down, the call is retried until then, and for at least RETRY_TIMEOUT_S.
        """
        end = gone = math.inf
        while True:
            left = max(0.0, min(wait or 0.0, until - time.monotonic()))
            target = path if wait is None else f"{path}?wait={left:.3f}"
            try:
                with self._exchange(method, target, body, accept="application/json", timeout=left + ANSWER_TIMEOUT_S) as answer:
                    status, content, retry_after = answer.status, _json_object(answer.read()), answer.getheader("Retry-After") or ""
            except Unavailable:
                # A broker that has ended does not come back.
                gone = min(gone, time.monotonic() + RETRY_TIMEOUT_S)
                # The broker closes new connections of a job that has very many. Retry only a GET: any other request may have had an effect.
                if method != "GET" or time.monotonic() + RETRY_INTERVAL_S > gone:
                    raise
                time.sleep(RETRY_INTERVAL_S)
                continue
            if status < 400:
                return status, content
            end, gone = min(end, max(time.monotonic() + RETRY_TIMEOUT_S, until)), math.inf
            pause = float(retry_after) if retry_after.isdigit() else RETRY_INTERVAL_S
            # After 429 and 503 nothing was done, so it is safe to retry.
            if status not in {429, 503} or time.monotonic() + pause > end:
                raise refusal_of(status, content)
            time.sleep(pause)

    def post(self, path: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one MCP message, waiting as long as needed, or raise the error for its HTTP status."""
        with self._exchange("POST", path, message, accept="application/json, text/event-stream", timeout=SILENCE_TIMEOUT_S) as answer:
            if answer.status >= 400:
                refusal = _json_object(answer.read())
                # What MCP itself refuses is a JSON-RPC error, too.
                if isinstance(refusal.get("error"), dict):
                    return refusal
                raise refusal_of(answer.status, refusal)
            streams = (answer.getheader("Content-Type") or "").startswith("text/event-stream")
            messages = (_json_object(text) for text in (stream_events(answer) if streams else (answer.read(),)) if text.strip())
            return next((each for each in messages if "id" in each), {"error": {"message": "the broker closed the connection too early"}})

    @contextmanager
    def _exchange(
        self, method: str, path: str, body: Mapping[str, Any] | None, *, accept: str, timeout: float
    ) -> Iterator[http.client.HTTPResponse]:
        """Send one request and yield the response. Raises Unavailable, even if the response breaks off while it is read."""
        headers, content = {"Accept": accept, **self.authorization}, None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        connection = self.connection(timeout)
        try:
            connection.request(method, path, content, headers)
            yield connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            place = self.socket or f"{self.host}:{self.port}"
            raise Unavailable(f"the job's broker does not answer at {place}: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()

    @property
    def authorization(self) -> dict[str, str]:
        """The authorization header for TCP; empty for the Unix socket."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that is not connected yet. `timeout`: seconds without data."""
        if self.socket:
            return _UnixConnection(self.socket, timeout)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("broker", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket, not to a host."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _json_object(content: bytes) -> dict[str, Any]:
    """Return the content as a JSON object; other content becomes its `detail`."""
    try:
        parsed = json.loads(content or b"{}")
    except ValueError:
        parsed = None
    return parsed if isinstance(parsed, dict) else {"detail": content[:200].decode("utf-8", "replace")}
