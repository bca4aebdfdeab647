"""One JSON-RPC message on its way to the broker, and what of it HTTP must be told (MCP, streamable HTTP). No I/O of its own."""

from __future__ import annotations

import base64
import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

NAMING_PARAMS = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
"""What of a method's params says what it is about."""
PLAIN_HEADER = re.compile(r"(?!=\?base64\?)[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
"""What a header's value can be as it is."""
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"


class JsonRpcCall:
    """One message, and the connection that it goes by."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message
        self.id = message.get("id")
        self.method = message["method"] if isinstance(message.get("method"), str) else ""
        self.is_request = bool(self.method) and "id" in message
        self.key = key_of(self.id) if self.is_request else ""
        self._lock = threading.Lock()
        self._gone = False
        self._connection: http.client.HTTPConnection | None = None

    @property
    def gone(self) -> bool:
        """Whether its client wants no answer any more."""
        return self._gone

    @property
    def version(self) -> str:
        """Of the protocol, where the message itself says it: later ones do, and have no handshake."""
        meta = self._params.get("_meta")
        found = meta.get(VERSION_KEY) if isinstance(meta, dict) else None
        return found if isinstance(found, str) and PLAIN_HEADER.fullmatch(found) else ""

    @property
    def method_header(self) -> str:
        """Its method, where a header can say it."""
        return self.method if PLAIN_HEADER.fullmatch(self.method) else ""

    @property
    def name_header(self) -> str:
        """What it is about, in the form that MCP has for headers; empty where it is about nothing."""
        found = self._params.get(NAMING_PARAMS.get(self.method, ""))
        if not isinstance(found, str) or not found or PLAIN_HEADER.fullmatch(found):
            return found if isinstance(found, str) else ""
        return f"=?base64?{base64.b64encode(found.encode('utf-8', 'replace')).decode()}?="

    @property
    def _params(self) -> dict[str, Any]:
        params = self.message.get("params")
        return params if isinstance(params, dict) else {}

    def attach(self, connection: http.client.HTTPConnection) -> bool:
        """Take note of a connection that was made for it; False where its client has taken it back meanwhile."""
        with self._lock:
            self._connection = connection
            return not self._gone

    def hang_up(self) -> None:
        """Have the broker see that nobody waits any more, and whoever reads its answer wake up."""
        with self._lock:
            self._gone = True
            sock = self._connection.sock if self._connection else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def key_of(about: Any) -> str:
    """Return what a request is known by: 1 and "1" are two."""
    return json.dumps(about)


def stream_events(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    """Yield the data of each event of a stream as it comes (WHATWG HTML, server-sent events)."""
    data: list[bytes] = []
    while line := answer.readline():
        name, _, value = line.rstrip(b"\r\n").partition(b":")
        if not line.strip(b"\r\n"):
            yield b"\n".join(data)
            data = []
        elif name == b"data":
            data.append(value[1:] if value.startswith(b" ") else value)
