"""A misbehaving upstream: it reports what it was sent, sends too much, never ends, is slow, redirects, or hangs up."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Upstream:
    """One that listens on loopback, and what it has been sent."""

    url: str
    seen: list[dict[str, Any]] = field(default_factory=list)
    reached: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    """Ends what is slow on purpose."""
    let_go: threading.Event = field(default_factory=threading.Event)
    """Ends what is held."""

    @property
    def authorization(self) -> str:
        """What the newest request was allowed by."""
        return str(self.seen[-1]["headers"]["authorization"])


@contextmanager
def serve_upstream() -> Iterator[Upstream]:
    """Listen for the length of a block."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        found = Upstream(f"http://127.0.0.1:{server.server_port}")
        server.upstream = found  # type: ignore[attr-defined] # how a handler finds it
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        found.over.set()
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        upstream: Upstream = self.server.upstream  # type: ignore[attr-defined] # set above
        body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
        told = {"path": self.path, "headers": {name.lower(): value for name, value in self.headers.items()}, "body": body}
        upstream.seen.append(told)
        upstream.reached.set()
        with suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, "_" + self.path.partition("?")[0].split("/")[1])(upstream, told)

    def _echo(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del upstream
        self._send_body(200, json.dumps(request).encode())

    def _broken(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del upstream
        self._send_body(500, json.dumps(request).encode())

    def _packed(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del upstream
        content = gzip.compress(json.dumps(request).encode(), compresslevel=0)
        self.send_response(200)
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _utf16(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del upstream
        self._send_body(200, json.dumps(request).encode("utf-16"))

    def _latin1(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del upstream
        self._send_body(200, str(request["body"]).encode("latin-1"))

    def _refused(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del upstream
        self._send_body(500, str(request["body"]).encode("latin-1"))

    def _utf8(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del upstream
        self._send_body(200, str(request["body"]).encode())

    def _away(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del request
        self.send_response(302)
        self.send_header("Location", f"{upstream.url}/echo")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _hangup(self, upstream: Upstream, request: dict[str, Any]) -> None:
        del upstream, request
        self.close_connection = True

    def _slow(self, upstream: Upstream, request: dict[str, Any]) -> None:
        upstream.over.wait(600)
        self._send_body(200, json.dumps(request).encode())

    def _held(self, upstream: Upstream, request: dict[str, Any]) -> None:
        upstream.let_go.wait(600)
        self._send_body(200, json.dumps(request).encode())

    def _endless(self, upstream: Upstream, request: dict[str, Any]) -> None:
        """Without end, and the credential in it where it will be cut."""
        del upstream
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        secret = request["headers"]["authorization"].encode()
        while True:
            self.wfile.write(secret + b" ")

    def _send_body(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
