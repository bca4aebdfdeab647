"""A real MCP server (the official SDK on uvicorn) that reports what it was sent and that tests can make misbehave: its list, answers and
HTTP.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from mcp import types
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from justenough.adapters.mcp_client.transport import MAX_ALL_VALUES, MAX_MESSAGES, MAX_VALUES
from tests.support.wait import until

NUMBER: dict[str, Any] = {"type": "object", "properties": {"number": {"type": "integer"}}}
IN_A_HEADER: dict[str, Any] = {"type": "object", "properties": {"number": {"type": "integer", "x-mcp-header": "Number"}}}
TEXT: dict[str, Any] = {"type": "object", "properties": {"note": {"type": "string"}}, "required": ["note"]}
TOOLS: tuple[dict[str, Any], ...] = (
    {"name": "get_issue", "description": "Reads an issue", "inputSchema": NUMBER, "annotations": {"readOnlyHint": True}},
    {"name": "get_echo", "description": "Tells what it was sent", "inputSchema": NUMBER},
    {"name": "get_long", "description": "Answers at length", "inputSchema": NUMBER},
    {"name": "get_picture", "description": "Draws", "inputSchema": IN_A_HEADER},
    {"name": "get_broken", "description": "Fails", "inputSchema": NUMBER},
    {"name": "get_slow", "description": "Takes its time", "inputSchema": NUMBER},
    {"name": "create_issue", "description": "Opens an issue", "inputSchema": TEXT},
    {"name": "delete_repo", "description": "Deletes everything", "inputSchema": NUMBER},
)

JSON = (b"content-type", b"application/json")


@dataclass
class McpServer:
    """One that listens on loopback."""

    url: str
    tools: list[dict[str, Any]] = field(default_factory=lambda: list(TOOLS))
    seen: list[tuple[str, str]] = field(default_factory=list)
    """The HTTP method or MCP's, and by what it was allowed, of each request."""
    tool_calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """What was called, with which arguments."""
    mode: str = ""
    """How it misbehaves: 500 | telling | redirect | endless | huge | packed | garbage | garbled | hang | old | asking | beating | drawing | newer |
    other | ended | unfit | unsendable | baking | bulky |
    schemas | chatty | paging.
    """
    at: str = "tools/call"
    """At which of MCP's methods."""
    structured: dict[str, Any] | None = None
    """What answers contain for programs."""
    reached: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def authorization(self) -> str:
        """What the newest request was allowed by."""
        return self.seen[-1][1]

    @contextlib.contextmanager
    def misbehave(self, mode: str = "", *, at: str = "tools/call", tools: list[dict[str, Any]] | None = None) -> Iterator[None]:
        """Misbehave for the length of a block."""
        was = self.mode, self.at, self.tools
        self.mode, self.at, self.tools = mode, at, was[2] if tools is None else tools
        try:
            yield
        finally:
            self.mode, self.at, self.tools = was


@contextlib.contextmanager
def serve_mcp() -> Iterator[McpServer]:
    """Listen for the length of a block."""
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    found = McpServer(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp")
    server = uvicorn.Server(uvicorn.Config(_build_app(found), log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    running = threading.Thread(target=server.run, args=([listening],), daemon=True)
    running.start()
    until(lambda: server.started, "the server listens")
    try:
        yield found
    finally:
        found.over.set()
        server.should_exit = True
        running.join(180)
        listening.close()


def _build_app(state: McpServer) -> Starlette:
    manager = StreamableHTTPSessionManager(_build_server(state))

    @contextlib.asynccontextmanager
    async def life(app: Starlette) -> AsyncIterator[None]:
        async with manager.run():
            yield

    return Starlette(routes=[Route("/mcp", _Endpoint(state, manager))], lifespan=life)


class _Endpoint:
    def __init__(self, state: McpServer, manager: StreamableHTTPSessionManager) -> None:
        self._state = state
        self._manager = manager

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        body = await request.body()
        method = json.loads(body).get("method", "") if body else request.method
        state = self._state
        state.seen.append((method, request.headers.get("authorization", "")))
        if state.mode == "old" and method == "server/discover":
            await _send_response(send, 400, b"no such thing")
        elif state.mode and state.mode != "old" and method == state.at:
            state.reached.set()
            await getattr(self, f"_{state.mode}")(send, receive, request)
        else:
            await self._manager.handle_request(scope, _replay_body(body, receive), send)

    async def _500(self, send: Send, receive: Receive, request: Request) -> None:
        await _send_response(send, 500, request.headers["authorization"].encode())

    async def _telling(self, send: Send, receive: Receive, request: Request) -> None:
        """A long error that ends with the credential, except for its last three characters before 2,000."""
        sent, number = request.headers["authorization"], json.loads(await request.body())["id"]
        told = "x" * (2_003 - len(sent)) + sent
        error = {"jsonrpc": "2.0", "id": number, "error": {"code": -32000, "message": told}}
        await _send_response(send, 200, json.dumps(error).encode(), JSON)

    async def _redirect(self, send: Send, receive: Receive, request: Request) -> None:
        # To the same server and with the same method: the SDK's own client would follow.
        await _send_response(send, 307, b"", (b"location", b"/mcp"))

    async def _packed(self, send: Send, receive: Receive, request: Request) -> None:
        await _send_response(send, 200, b"\x1f\x8b", (b"content-encoding", b"gzip"))

    async def _garbage(self, send: Send, receive: Receive, request: Request) -> None:
        await _send_response(send, 200, json.dumps({"jsonrpc": "1.0", "told": request.headers["authorization"]}).encode(), JSON)

    async def _garbled(self, send: Send, receive: Receive, request: Request) -> None:
        """Messages that no client can read, each with a credential in it: a notification, a request, an answer."""
        sent = request.headers["authorization"]
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": sent}}
        asks = {"jsonrpc": "2.0", "id": 9, "method": "sampling/createMessage", "params": {"messages": sent}}
        told = "".join(f"event: message\ndata: {json.dumps(one)}\n\n" for one in (note, asks))
        await _send_response(send, 200, f"{told}data: {{{sent}\n\n".encode(), (b"content-type", b"text/event-stream"))

    async def _asking(self, send: Send, receive: Receive, request: Request) -> None:
        """Ask for input instead of calling the tool; with content only where the structured answer is set."""
        result = {"resultType": "input_required", "requestState": "1", **(self._state.structured or {})}
        await _send_response(send, 200, _answer_to(await request.body(), result), JSON)

    async def _beating(self, send: Send, receive: Receive, request: Request) -> None:
        """An event that is no message, and then the answer."""
        answer = _answer_to(await request.body(), {"resultType": "complete", "content": [{"type": "text", "text": "alive"}]})
        told = b"event: heartbeat\ndata: 1\n\nevent: message\ndata: " + answer + b"\n\n"
        await _send_response(send, 200, told, (b"content-type", b"text/event-stream"))

    async def _drawing(self, send: Send, receive: Receive, request: Request) -> None:
        """A picture for people, and the same for programs."""
        picture = {"type": "image", "data": "aGk=", "mimeType": "image/png"}
        result = {"resultType": "complete", "content": [picture], "structuredContent": self._state.structured}
        await _send_response(send, 200, _answer_to(await request.body(), result), JSON)

    async def _newer(self, send: Send, receive: Receive, request: Request) -> None:
        """Content of types that MCP does not have yet, with the credential in it, then text and a link, which it has, and the same for programs."""
        sent = request.headers["authorization"]
        blocks: list[dict[str, Any]] = [{"type": "hologram", "data": sent}, {"type": f"film of {sent}"}]
        blocks += [
            {"type": "resource", "resource": {"uri": "file:///plan", "text": "A house"}},
            {"type": "resource_link", "uri": "file:///x", "name": "site"},
        ]
        result = {"resultType": "complete", "content": blocks, "structuredContent": self._state.structured}
        await _send_response(send, 200, _answer_to(await request.body(), result), JSON)

    async def _other(self, send: Send, receive: Receive, request: Request) -> None:
        """An answer to a request that was not sent."""
        answer = {"jsonrpc": "2.0", "id": 4711, "result": {}}
        await _send_response(send, 200, json.dumps(answer).encode(), JSON)

    async def _unsendable(self, send: Send, receive: Receive, request: Request) -> None:
        """An answer that begins a session whose id a header cannot contain."""
        answer = _answer_to(await request.body(), {"resultType": "complete", "content": []})
        await _send_response(send, 200, answer, JSON, (b"mcp-session-id", b"\xff"))

    async def _baking(self, send: Send, receive: Receive, request: Request) -> None:
        """An answer that begins a session, with a cookie that a header cannot contain."""
        answer = _answer_to(await request.body(), {"resultType": "complete", "content": []})
        await _send_response(send, 200, answer, JSON, (b"mcp-session-id", b"1"), (b"set-cookie", b"a=\xff"))

    async def _bulky(self, send: Send, receive: Receive, request: Request) -> None:
        """An answer with very many blocks of content, none of them valid."""
        await _send_response(send, 200, _answer_to(await request.body(), {"resultType": "complete", "content": [{}] * MAX_VALUES}), JSON)

    async def _schemas(self, send: Send, receive: Receive, request: Request) -> None:
        """A list with a very large schema."""
        schema = {"type": "object", "properties": {str(number): {} for number in range(MAX_ALL_VALUES)}}
        result = {"resultType": "complete", "tools": [{"name": "x", "inputSchema": schema}], "ttlMs": 0, "cacheScope": "private"}
        await _send_response(send, 200, _answer_to(await request.body(), result), JSON)

    async def _chatty(self, send: Send, receive: Receive, request: Request) -> None:
        """An answer after very many notifications."""
        answer = _answer_to(await request.body(), {"resultType": "complete", "content": []})
        told = b'data: {"jsonrpc": "2.0", "method": "x"}\n\n' * MAX_MESSAGES + b"data: " + answer + b"\n\n"
        await _send_response(send, 200, told, (b"content-type", b"text/event-stream"))

    async def _ended(self, send: Send, receive: Receive, request: Request) -> None:
        """A stream without an answer."""
        await _send_response(send, 200, b"event: heartbeat\ndata: 1\n\n", (b"content-type", b"text/event-stream"))

    async def _unfit(self, send: Send, receive: Receive, request: Request) -> None:
        """A result that does not conform to MCP."""
        await _send_response(send, 200, _answer_to(await request.body(), {"resultType": "complete", "content": "text"}), JSON)

    async def _paging(self, send: Send, receive: Receive, request: Request) -> None:
        """A list that always has another page."""
        result = {"resultType": "complete", "tools": [], "nextCursor": "more", "ttlMs": 0, "cacheScope": "private"}
        await _send_response(send, 200, _answer_to(await request.body(), result), JSON)

    async def _hang(self, send: Send, receive: Receive, request: Request) -> None:
        await asyncio.to_thread(self._state.over.wait, 600)

    async def _huge(self, send: Send, receive: Receive, request: Request) -> None:
        await _start_response(send, b"application/json")
        with contextlib.suppress(OSError):
            while await _send_chunk(send, receive, b" " * 65536):
                pass

    async def _endless(self, send: Send, receive: Receive, request: Request) -> None:
        """Progress without end, and a credential in it."""
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1, "message": ""}}
        note["params"]["message"] = request.headers["authorization"]  # type: ignore[index] # a mapping, as written above
        await _start_response(send, b"text/event-stream")
        while not self._state.over.is_set() and await _send_chunk(send, receive, f"event: message\ndata: {json.dumps(note)}\n\n".encode()):
            pass


def _answer_to(request: bytes, result: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": json.loads(request)["id"], "result": result}).encode()


async def _start_response(send: Send, kind: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})


async def _send_chunk(send: Send, receive: Receive, content: bytes) -> bool:
    """Send a piece; return False if the client is gone."""
    await send({"type": "http.response.body", "body": content, "more_body": True})
    gone = asyncio.ensure_future(receive())
    done, _ = await asyncio.wait({gone}, timeout=0.001)
    gone.cancel()
    return not done or gone.result()["type"] != "http.disconnect"


async def _send_response(send: Send, status: int, content: bytes, *headers: tuple[bytes, bytes]) -> None:
    kinds = {b"content-type": b"text/plain", b"content-length": str(len(content)).encode(), **dict(headers)}
    await send({"type": "http.response.start", "status": status, "headers": list(kinds.items())})
    await send({"type": "http.response.body", "body": content})


def _replay_body(body: bytes, receive: Receive) -> Receive:
    told: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receiving() -> Message:
        return told.pop() if told else await receive()

    return receiving


def _build_server(state: McpServer) -> Server[Any]:
    async def list_tools(context: Any, params: Any) -> types.ListToolsResult:
        # List tools in pages of three: those on the last page count, too.
        start = int(params.cursor or 0) if params else 0
        tools = [types.Tool.model_validate(one) for one in state.tools]
        more = str(start + 3) if start + 3 < len(tools) else None
        return types.ListToolsResult(tools=tools[start : start + 3], next_cursor=more)

    async def call_tool(context: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        state.tool_calls.append((params.name, dict(params.arguments or {})))
        state.reached.set()
        text, failed = await asyncio.to_thread(_tool_answer, state, params.name, params.arguments or {})
        content: list[Any] = [types.TextContent(type="text", text=text)]
        if params.name == "get_picture":
            content.append(types.ImageContent(type="image", data=base64.b64encode(text.encode()).decode(), mime_type="image/png"))
        return types.CallToolResult(content=content, structured_content=state.structured, is_error=failed)

    return Server("hub", on_list_tools=list_tools, on_call_tool=call_tool)


def _tool_answer(state: McpServer, name: str, arguments: dict[str, Any]) -> tuple[str, bool]:
    sent = state.authorization
    match name:
        case "get_echo" | "get_picture":
            return f"{sent} {base64.b64encode(sent.encode()).decode()}", False
        case "get_long":
            return f"{sent} " * 20_000, False
        case "get_broken":
            return f"no such issue for {sent}", True
        case "get_slow":
            state.over.wait(600)
    return f"{name} {json.dumps(arguments, sort_keys=True)}", False
