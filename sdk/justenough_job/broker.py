"""The wire to the job's broker: HTTP over its Unix socket, else on loopback with the job's token. Knows no meaning."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from justenough_job.errors import OutsideJob, Unavailable, refusal_of
from justenough_job.jsonrpc import stream_events

RETRY_TIMEOUT_S = 15.0
"""Seconds for which a server that is away, or a broker that asks for quiet, is asked again."""
RETRY_INTERVAL_S = 0.5
SILENCE_TIMEOUT_S = 180.0
"""Seconds without a word while a tool is used: while people are waited for the broker says something every few seconds."""
SANDBOX_SOCKET = "/run/justenough/broker.sock"
"""Where the socket is in the sandbox."""
ANSWER_TIMEOUT_S = 45.0
"""Seconds that an answer may take beside the wait for people: Vault may take 10 s, and whatever is given back is looked after."""


@dataclass(frozen=True)
class BrokerClient:
    """Where this job's broker listens. The token never prints."""

    socket: str = ""
    host: str = ""
    port: int = 0
    token: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> BrokerClient:
        """Return the broker that the environment names; raise OutsideJob."""
        told = os.environ if environment is None else environment
        if told.get("JUSTENOUGH_BROKER"):
            return cls(socket=told["JUSTENOUGH_BROKER"])
        if told.get("JUSTENOUGH_BROKER_URL"):
            at = urlsplit(told["JUSTENOUGH_BROKER_URL"])
            return cls(host=at.hostname or "", port=at.port or 80, token=told.get("JUSTENOUGH_BROKER_TOKEN", ""))
        # Programs that start others with few variables, as MCP clients do their servers, take these away.
        if environment is None and Path(SANDBOX_SOCKET).is_socket():
            return cls(socket=SANDBOX_SOCKET)
        message = (
            "this program does not run as a JustEnough job: neither JUSTENOUGH_BROKER nor JUSTENOUGH_BROKER_URL is set. "
            "Launch it with `justenough job run`, and pass the job's variables on to programs that it starts"
        )
        raise OutsideJob(message)

    def call(self, method: str, path: str, body: Mapping[str, Any] | None = None, *, wait: float = 0.0) -> tuple[int, dict[str, Any]]:
        """Return status and body of an answer that is well; raise what another stands for. `wait`: seconds that the broker was asked to wait."""
        end = time.monotonic() + RETRY_TIMEOUT_S
        while True:
            try:
                status, told, pause = self._send(method, path, body, wait=wait)
            except Unavailable:
                # The broker drops connections of a job with very many. A GET can be retried; any other request may have been granted something.
                if method != "GET" or time.monotonic() + RETRY_INTERVAL_S > end:
                    raise
                time.sleep(RETRY_INTERVAL_S)
                continue
            if status < 400:
                return status, told
            # Both mean that nothing was done: retrying is safe.
            if status not in {429, 503} or time.monotonic() + pause > end:
                raise refusal_of(status, told)
            time.sleep(pause)

    def post(self, path: str, message: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer to one MCP message, however long it takes; raise the error that an HTTP status stands for."""
        connection = self.connection(SILENCE_TIMEOUT_S)
        headers = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json", **self.authorization}
        try:
            connection.request("POST", path, json.dumps(message).encode(), headers)
            answer = connection.getresponse()
            if answer.status >= 400:
                raise refusal_of(answer.status, _json_object(answer.read()))
            streams = (answer.getheader("Content-Type") or "").startswith("text/event-stream")
            told = (_json_object(text) for text in (stream_events(answer) if streams else (answer.read(),)) if text.strip())
            return next((one for one in told if "id" in one), {"error": {"message": "the job's broker ended its answer early"}})
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the job's broker does not answer at {self._place}: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None, *, wait: float) -> tuple[int, dict[str, Any], float]:
        connection = self.connection(wait + ANSWER_TIMEOUT_S)
        headers = {"Accept": "application/json", **self.authorization}
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        try:
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            return (
                answer.status,
                _json_object(answer.read()),
                float(pause) if (pause := answer.getheader("Retry-After") or "").isdigit() else RETRY_INTERVAL_S,
            )
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"the job's broker does not answer at {self._place}: {str(error) or type(error).__name__}") from error
        finally:
            connection.close()

    @property
    def authorization(self) -> dict[str, str]:
        """The authorization header of a call by TCP."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that has not been made yet. `timeout`: seconds of silence."""
        if self.socket:
            return _UnixConnection(self.socket, timeout)
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout)

    @property
    def _place(self) -> str:
        return self.socket or f"{self.host}:{self.port}"


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
    """Return the content as a JSON object; anything else becomes its `detail`."""
    try:
        told = json.loads(content or b"{}")
    except ValueError:
        told = None
    return told if isinstance(told, dict) else {"detail": content[:200].decode("utf-8", "replace")}
