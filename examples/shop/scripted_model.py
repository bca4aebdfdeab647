"""A stand-in for a language model: it speaks OpenAI's chat completions and follows a fixed script, so that an agent's demo runs offline and repeatably.

    python3 scripted_model.py --port 8199        then MODEL_URL=http://127.0.0.1:8199/v1

Only the conversation determines the next line of the script: how many tools were called so far, and what they returned. Like a model that was
talked into something, it first obeys every line of a ticket of the form `call <tool> <arguments as JSON>`, even if it was not offered that tool.
Needs only Python's standard library; accepts any key.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = "scripted"
MOST_BYTES = 8 * 1024 * 1024
ORDER = re.compile(r"^call (?P<tool>[a-z][a-z0-9_-]*) (?P<arguments>\{.*\})$", re.MULTILINE)
"""Matches a line with which the author of a ticket gives this model an order."""
Call = tuple[str, dict[str, Any]]


@dataclass(frozen=True)
class Talk:
    """A conversation as it came: which tools there are, which were called, and what they returned."""

    offered: frozenset[str]
    called: tuple[str, ...]
    returned: tuple[str, ...]

    @classmethod
    def of(cls, asked: dict[str, Any]) -> Talk:
        """Parse the conversation of a request."""
        messages = asked.get("messages") or []
        offered = frozenset(tool["function"]["name"] for tool in asked.get("tools") or [])
        called = tuple(call["function"]["name"] for message in messages for call in message.get("tool_calls") or [])
        returned = tuple(_text(message.get("content")) for message in messages if message.get("role") == "tool")
        return cls(offered, called, returned)

    def seen(self, name: str, *, default: Any) -> Any:
        """Return the first value that a tool returned under a name, the newest result first."""
        for text in reversed(self.returned):
            for found in _values(_json(text), name):
                return found
        return default

    def bodies(self) -> Iterator[str]:
        """Yield the texts of the listed tickets."""
        yield from (found for text in self.returned[:1] for found in _values(_json(text), "body") if isinstance(found, str))


def script(talk: Talk) -> Iterator[Call]:
    """Yield the calls that the model wants to make, in order. Each is computed from the results so far."""
    yield "list-tickets", {"kind": "refund", "limit": 1}
    for body in talk.bodies():
        yield from ((found["tool"], _json(found["arguments"]) or {}) for found in ORDER.finditer(body))
    order = int(talk.seen("order_id", default=0) or talk.seen("id", default=0))
    yield "find-order", {"order_id": order}
    ticket = {"ticket_id": int(talk.seen("ticket_id", default=0))} if talk.seen("ticket_id", default=0) else {}
    amount = float(talk.seen("amount", default=1))
    yield "refund-order", {"order_id": order, "amount": amount, "reason": "The customer asked for it in the ticket", **ticket}
    yield "find-customer", {"customer_id": int(talk.seen("customer_id", default=0))}
    yield "export-customers", {"reason": "The ticket says that the accountants need them"}


def said(asked: dict[str, Any]) -> tuple[str, Call | None]:
    """Return the model's text, and the tool that it calls."""
    talk = Talk.of(asked)
    told = {found["tool"] for body in talk.bodies() for found in ORDER.finditer(body)}
    wanted = [(name, arguments) for name, arguments in script(talk) if name in talk.offered | told]
    if len(talk.called) < len(wanted):
        return "", wanted[len(talk.called)]
    done = [f"{name}: {text[:200]}" for name, text in zip(talk.called, talk.returned, strict=False)]
    return "\n".join(["What became of it:", *done]) if done else "Nobody gave me a tool, so there is nothing that I can do.", None


def message(asked: dict[str, Any]) -> dict[str, Any]:
    """Return the answer as OpenAI writes it."""
    text, call = said(asked)
    if call is None:
        return {"role": "assistant", "content": text}
    function = {"name": call[0], "arguments": json.dumps(call[1])}
    number = len(Talk.of(asked).called) + 1
    return {"role": "assistant", "content": None, "tool_calls": [{"id": f"call-{number}", "type": "function", "function": function}]}


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """List the one model."""
        self._answer({"object": "list", "data": [{"id": NAME, "object": "model", "created": 0, "owned_by": "shop"}]})

    def do_POST(self) -> None:
        """Answer whole or as a stream."""
        size = int(self.headers.get("Content-Length") or 0)
        asked = _json(self.rfile.read(min(size, MOST_BYTES)).decode("utf-8", "replace"))
        if size > MOST_BYTES or not isinstance(asked, dict) or not isinstance(asked.get("messages"), list):
            self.close_connection = True
            self._answer({"error": {"message": "send `messages` as JSON", "type": "invalid_request_error"}}, status=400)
            return
        told = message(asked)
        ends = "tool_calls" if "tool_calls" in told else "stop"
        prompt, completion = len(json.dumps(asked["messages"])) // 4, len(json.dumps(told)) // 4
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        if asked.get("stream"):
            self._stream(told, ends, usage if (asked.get("stream_options") or {}).get("include_usage") else None)
            return
        choice = {"index": 0, "message": told, "finish_reason": ends}
        self._answer({"id": "scripted", "object": "chat.completion", "created": 0, "model": NAME, "choices": [choice], "usage": usage})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: requests to a model are confidential."""

    def _stream(self, told: dict[str, Any], ends: str, usage: dict[str, int] | None) -> None:
        calls = [{"index": index, **call} for index, call in enumerate(told.get("tool_calls", []))]
        delta = {**told, **({"tool_calls": calls} if calls else {})}
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for choices, counted in (
            ([{"index": 0, "delta": delta, "finish_reason": None}], None),
            ([{"index": 0, "delta": {}, "finish_reason": ends}], None),
            *([([], usage)] if usage else []),
        ):
            piece = {"id": "scripted", "object": "chat.completion.chunk", "created": 0, "model": NAME, "choices": choices}
            self.wfile.write(f"data: {json.dumps(piece | ({'usage': counted} if counted else {}))}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def _answer(self, body: dict[str, Any], *, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _values(value: Any, name: str) -> Iterator[Any]:
    """Yield each value of a key of this name, at any depth of a JSON value."""
    if isinstance(value, dict):
        if value.get(name) is not None:
            yield value[name]
        for inner in value.values():
            yield from _values(inner, name)
    elif isinstance(value, list):
        for inner in value:
            yield from _values(inner, name)


def main() -> int:
    """Serve until somebody ends it."""
    parser = argparse.ArgumentParser(description="A scripted model for the shop's agent.")
    parser.add_argument("--port", type=int, required=True)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    server.daemon_threads = True
    print(f"A scripted model listens at http://127.0.0.1:{server.server_address[1]}/v1", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
