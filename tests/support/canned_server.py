"""A small local HTTP server with canned responses, which records its requests.

It replaces a console or a Vault only in tests of what the program does with a response, or of what it sends where.
"""

from __future__ import annotations

import json
import ssl
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class RecordedRequest:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class CannedServer:
    """The responses of a canned server, and the requests that it received."""

    status: int = 200
    body: bytes = b'{"items": [], "next": null}'
    media: str = "application/json"
    routes: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """Status and body for paths that end so (without the query); they override `status` and `body`."""
    requests: list[RecordedRequest] = field(default_factory=list)
    address: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with each response."""

    def set_response(self, status: int, body: Any, media: str = "application/problem+json") -> None:
        """Send this response from now on."""
        self.status, self.media = status, media
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer_to(self, path: str) -> tuple[int, bytes]:
        """Return status and body for a path."""
        end = next((end for end in self.routes if path.partition("?")[0].endswith(end)), None)
        if end is None:
            return self.status, self.body
        status, body = self.routes[end]
        return status, json.dumps(body).encode()


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print nothing about clients that go away: it could land in what a later test captures."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def serve_canned_answers(tls: ssl.SSLContext | None = None) -> Iterator[CannedServer]:
    """Serve on a free port for a block."""
    answers = CannedServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answers.requests.append(RecordedRequest(self.command, self.path, dict(self.headers), body))
            status, content = answers.answer_to(self.path)
            self.send_response(status)
            self.send_header("Content-Type", answers.media)
            self.send_header("Content-Length", str(len(content)))
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_DELETE = do_LIST = do_GET  # noqa: N815 - http.server's names

        def log_message(self, *_: Any) -> None:
            pass

    with _QuietServer(("127.0.0.1", 0), Handler) as server:
        answers.address = f"http://127.0.0.1:{server.server_port}"
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
            answers.address = f"https://localhost:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield answers
        finally:
            server.shutdown()
            thread.join()
