"""A tiny local HTTP server with fixed answers, which records what it hears.

It stands for a console or a Vault only where the question is what the program does with an answer, or what it sends to whom.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Heard:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass
class Answering:
    """What is answered, and what was heard."""

    status: int = 200
    body: bytes = b'{"items": [], "next": null}'
    media: str = "application/json"
    routes: dict[str, tuple[int, Any]] = field(default_factory=dict)
    """Other answers, by how a path ends (without its query)."""
    heard: list[Heard] = field(default_factory=list)
    address: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Sent with each answer."""

    def says(self, status: int, body: Any, media: str = "application/problem+json") -> None:
        """Answer so from now on."""
        self.status, self.media = status, media
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()

    def answer_to(self, path: str) -> tuple[int, bytes]:
        """Return status and body for a path."""
        end = next((end for end in self.routes if path.partition("?")[0].endswith(end)), None)
        if end is None:
            return self.status, self.body
        status, body = self.routes[end]
        return status, json.dumps(body).encode()


@contextmanager
def answering() -> Iterator[Answering]:
    """Serve on a free port for the length of a block."""
    answers = Answering()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            answers.heard.append(Heard(self.command, self.path, dict(self.headers), body))
            status, answer = answers.answer_to(self.path)
            self.send_response(status)
            self.send_header("Content-Type", answers.media)
            self.send_header("Content-Length", str(len(answer)))
            for name, value in answers.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        answers.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield answers
        finally:
            server.shutdown()
            thread.join()
