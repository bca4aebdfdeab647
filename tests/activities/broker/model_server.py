"""A server of a model for tests: real HTTP on loopback in OpenAI's format, with answers that a test chooses."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}


@dataclass
class ModelServer:
    """How the model's server responds, and the requests that it got."""

    port: int
    respond: Callable[[Handler, dict[str, Any]], None]
    questions: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    """The Authorization headers, as they came."""
    reached: threading.Event = field(default_factory=threading.Event)
    """Set by what an answer does on its way, for a test to wait for."""
    hung_up: threading.Event = field(default_factory=threading.Event)
    """Set when the gateway hung up on an answer."""
    over: threading.Event = field(default_factory=threading.Event)
    """Set when the server ends: what waits, waits for this."""

    def answer_with(self, respond: Callable[[Handler, dict[str, Any]], None]) -> None:
        """Do this from now on; forget what was."""
        self.respond = respond
        self.questions.clear()
        self.keys.clear()
        self.reached.clear()
        self.hung_up.clear()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    model: ClassVar[ModelServer]

    def do_GET(self) -> None:
        self.model.keys.append(self.headers["Authorization"])
        named = [{"id": name, "object": "model", "created": 1, "owned_by": "tests"} for name in ("gpt-4o", "scripted", "secret-model")]
        self.answer({"object": "list", "data": named})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.model.questions.append(asked)
        self.model.keys.append(self.headers["Authorization"])
        try:
            self.model.respond(self, asked)
        except OSError:
            self.close_connection = True
            self.model.hung_up.set()

    def answer(self, body: Any, *, status: int = 200, **headers: str) -> None:
        """Send a whole answer; a text is sent unchanged."""
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def begin(self) -> None:
        """Begin a stream that ends with its connection."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Connection", "close")
        self.end_headers()

    def send(self, data: Any) -> None:
        """Send one event of a stream."""
        self.wfile.write(b"data: " + (data if isinstance(data, str) else json.dumps(data)).encode() + b"\n\n")
        self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


def text_answer(text: str, *, usage: dict[str, int] | None = USAGE, **message: Any) -> Callable[[Handler, dict[str, Any]], None]:
    """Answer whole."""

    def does(handler: Handler, asked: dict[str, Any]) -> None:
        told = {"index": 0, "message": {"role": "assistant", "content": text, **message}, "finish_reason": "stop"}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": asked["model"], "choices": [told]}
        handler.answer(body | ({"usage": usage} if usage else {}))

    return does


def build_chunk(text: str) -> dict[str, Any]:
    """One event of a stream."""
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    return {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "scripted", "choices": [choice]}


def stream_answer(*texts: str, usage: dict[str, int] | None = USAGE) -> Callable[[Handler, dict[str, Any]], None]:
    """Answer as a stream; its usage at the end only where it was asked for, as OpenAI does."""

    def does(handler: Handler, asked: dict[str, Any]) -> None:
        handler.begin()
        for text in texts:
            handler.send(build_chunk(text))
        if usage and (asked.get("stream_options") or {}).get("include_usage"):
            handler.send({**build_chunk(""), "choices": [], "usage": usage})
        handler.send("[DONE]")

    return does


def break_stream_off(handler: Handler, asked: dict[str, Any]) -> None:
    """Begin a stream with a marked end, and close the connection before that."""
    del asked
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("Content-Type", "text/event-stream")
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    event = f"data: {json.dumps(build_chunk('x' * 400))}\n\n".encode()
    handler.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))


def stream_forever(handler: Handler, asked: dict[str, Any]) -> None:
    """Stream until somebody hangs up."""
    del asked
    handler.begin()
    while not handler.model.over.is_set():
        handler.send(build_chunk("and so on "))
        handler.model.reached.set()


def stream_slowly(handler: Handler, asked: dict[str, Any]) -> None:
    """Stream a word now and then until somebody hangs up."""
    del asked
    handler.begin()
    handler.model.reached.set()
    try:
        while not handler.model.over.wait(0.2):
            handler.send(build_chunk("word "))
    except OSError:
        handler.model.hung_up.set()


def hold_stream(handler: Handler, asked: dict[str, Any]) -> None:
    """Begin a stream and send nothing more until the client is gone."""
    handler.begin()
    handler.send(build_chunk("wait"))
    stay_silent(handler, asked)


def stay_silent(handler: Handler, asked: dict[str, Any]) -> None:
    """Take the question and say nothing, until the other end is gone."""
    del asked
    handler.model.reached.set()
    handler.close_connection = True
    if not handler.rfile.read(1):
        handler.model.hung_up.set()


def error_answer(status: int, body: Any, **headers: str) -> Callable[[Handler, dict[str, Any]], None]:
    """Answer with an error."""
    return lambda handler, _: handler.answer(body, status=status, **headers)


@contextmanager
def serve_model(port: int) -> Iterator[ModelServer]:
    """Serve for the length of a block. Port 0 is a free one."""

    class Bound(Handler):
        pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Bound)
    model = Bound.model = ModelServer(server.server_port, text_answer("Hello"))
    server.daemon_threads = True
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    serving.start()
    try:
        yield model
    finally:
        model.over.set()
        server.shutdown()
        serving.join()
        server.server_close()
