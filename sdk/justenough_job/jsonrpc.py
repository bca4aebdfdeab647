"""One JSON-RPC message on its way to the broker, and its HTTP headers (MCP, streamable HTTP). Does no I/O, except closing the connection."""

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
"""The param that names a method's object."""
PLAIN_HEADER = re.compile(r"(?!=\?base64\?)[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
"""Matches values that need no encoding in a header."""
VERSION_KEY = "io.modelcontextprotocol/protocolVersion"


class JsonRpcCall:
    """One message, and the connection that carries it."""

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message
        self.id = message.get("id")
        self.method = message["method"] if isinstance(message.get("method"), str) else ""
        self.is_request = bool(self.method) and "id" in message
        self.key = key_of(self.id) if self.is_request else ""
        self.gone = False
        """Whether its client no longer waits for an answer."""
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None

    def headers(self, *, version: str, session: str) -> dict[str, str]:
        """Return its MCP headers. `version`: the protocol version that the client negotiated, if any; `session`: its session, if any."""
        params = self.message.get("params")
        params = params if isinstance(params, dict) else {}
        # In later protocol versions there is no handshake, and each message has the version itself.
        meta = params.get("_meta")
        own_version = meta.get(VERSION_KEY) if isinstance(meta, dict) else None
        if not (isinstance(own_version, str) and PLAIN_HEADER.fullmatch(own_version)):
            own_version = "" if self.method == "initialize" else version
        name = params.get(NAMING_PARAMS.get(self.method, ""))
        name = name if isinstance(name, str) else ""
        if name and not PLAIN_HEADER.fullmatch(name):
            name = f"=?base64?{base64.b64encode(name.encode('utf-8', 'replace')).decode()}?="
        method = self.method if PLAIN_HEADER.fullmatch(self.method) else ""
        headers = {"MCP-Protocol-Version": own_version, "Mcp-Session-Id": session, "Mcp-Method": method, "Mcp-Name": name}
        return {header: value for header, value in headers.items() if value}

    def attach(self, connection: http.client.HTTPConnection) -> bool:
        """Set its connection; return False if the client has already cancelled the message."""
        with self._lock:
            self._connection = connection
            return not self.gone

    def hang_up(self) -> None:
        """Close its connection, so that the broker cancels it and the thread that reads its answer wakes up."""
        with self._lock:
            self.gone = True
            sock = self._connection.sock if self._connection else None
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return


def key_of(request_id: Any) -> str:
    """Return the key of a request id: 1 and "1" differ."""
    return json.dumps(request_id)


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
