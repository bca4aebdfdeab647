"""Carries the MCP SDK's messages over streamable HTTP (MCP, "Transports"): bounded in bytes, no redirect followed, nothing unpacked, nothing logged.

The SDK's own carrier follows redirects of a server to itself, opens streams that nobody here reads, and logs what it cannot read, which may
hold what the server was sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import types
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from pydantic import ValidationError

MAX_RECEIVED_BYTES = 4 * 1024 * 1024
"""Bytes of all answers of one conversation."""
SESSION_HEADER, VERSION_HEADER = "mcp-session-id", "mcp-protocol-version"
ACCEPT_HEADERS = {"accept": "application/json, text/event-stream"}
UNCOMPRESSED_ENCODINGS = frozenset({"", "identity"})

IncomingMessages = MemoryObjectReceiveStream[SessionMessage | Exception]
OutgoingMessages = MemoryObjectSendStream[SessionMessage]
IncomingSink = MemoryObjectSendStream[SessionMessage | Exception]


class UnacceptableResponse(Exception):
    """What a server does that is not put up with; the message says what, and nothing that the server said."""


class McpTransport:
    """Of one conversation with one server."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._received = 0
        self._version = ""
        self.last_status = 0
        """Of the newest answer."""
        self.session_id = ""
        """What the server calls this conversation, where it keeps any."""

    @asynccontextmanager
    async def open_streams(self) -> AsyncIterator[tuple[IncomingMessages, OutgoingMessages]]:
        """Carry messages until the block ends. Raises Refused and httpx's errors, in groups."""
        inbox, heard = anyio.create_memory_object_stream[SessionMessage | Exception]()
        said, outbox = anyio.create_memory_object_stream[SessionMessage]()
        async with inbox, heard, said, outbox, anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_outgoing, outbox, inbox, tasks)
            try:
                yield heard, said
            finally:
                tasks.cancel_scope.cancel()

    async def end_session(self) -> None:
        """Tell the server that its session is over, where it keeps any."""
        if self.session_id:
            await self._http.delete(self._url, headers=self._headers(None))

    async def _send_outgoing(self, outbox: MemoryObjectReceiveStream[SessionMessage], inbox: IncomingSink, tasks: TaskGroup) -> None:
        async for one in outbox:
            if isinstance(one.message, types.JSONRPCRequest):
                # Beside the others: while it is answered the server may ask back.
                tasks.start_soon(self._send_request, one, one.message, inbox)
            else:
                async with self._post(one):
                    continue

    async def _send_request(self, outgoing: SessionMessage, request: types.JSONRPCRequest, inbox: IncomingSink) -> None:
        """Post a request, and hand on what comes back until it is answered."""
        if request.method == "initialize":
            self._version = ""
        async with self._post(outgoing) as answer:
            async for text in self._message_bodies(answer):
                message = _parse_message(text, request) if answer.status_code < 400 else _parse_error(text, request)
                await inbox.send(SessionMessage(message))
                if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                    return
        await inbox.send(SessionMessage(_build_failure(request, "the answer ended before it had said anything")))

    @asynccontextmanager
    async def _post(self, outgoing: SessionMessage) -> AsyncIterator[httpx.Response]:
        body = outgoing.message.model_dump(by_alias=True, mode="json", exclude_unset=True)
        async with self._http.stream("POST", self._url, json=body, headers=self._headers(outgoing)) as answer:
            self.last_status = answer.status_code
            if 300 <= answer.status_code < 400:
                raise UnacceptableResponse(f"the upstream answers with a redirect (HTTP {answer.status_code}), which is not followed")
            if answer.headers.get("content-encoding", "").lower() not in UNCOMPRESSED_ENCODINGS:
                raise UnacceptableResponse("the upstream packs its answers, though it was told not to")
            self.session_id = answer.headers.get(SESSION_HEADER, "") or self.session_id
            yield answer

    def _headers(self, outgoing: SessionMessage | None) -> dict[str, str]:
        stamped = outgoing.metadata.headers or {} if outgoing and isinstance(outgoing.metadata, ClientMessageMetadata) else {}
        # What the SDK does not stamp itself is of the version that it has stamped last.
        self._version = next((value for name, value in stamped.items() if name.lower() == VERSION_HEADER), self._version)
        known = {SESSION_HEADER: self.session_id, VERSION_HEADER: self._version}
        return {
            **ACCEPT_HEADERS,
            **{name: value for name, value in known.items() if value},
            **{name.lower(): value for name, value in stamped.items()},
        }

    async def _message_bodies(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        """Yield each message of an answer as it comes: of a stream its events' data (WHATWG HTML, server-sent events), else the whole."""
        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
            yield b"".join([chunk async for chunk in self._chunks(answer)])
            return
        data: list[bytes] = []
        async for line in self._lines(answer):
            name, _, value = line.partition(b":")
            if line and name == b"data":
                data.append(value.removeprefix(b" "))
            elif not line and any(data):
                yield b"\n".join(data)
            data = data if line else []

    async def _lines(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        held = b""
        async for chunk in self._chunks(answer):
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                yield line.rstrip(b"\r")

    async def _chunks(self, answer: httpx.Response) -> AsyncIterator[bytes]:
        async for chunk in answer.aiter_raw():
            self._received += len(chunk)
            if self._received > MAX_RECEIVED_BYTES:
                raise UnacceptableResponse(f"the upstream sent more than {MAX_RECEIVED_BYTES:,} bytes")
            yield chunk


def _parse_message(text: bytes, request: types.JSONRPCRequest) -> types.JSONRPCMessage:
    """Return a message; an answer to something else, or what is no message, is a failure of the request."""
    try:
        found = types.jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError:
        return _build_failure(request, "it is no message of MCP")
    if isinstance(found, types.JSONRPCResponse | types.JSONRPCError) and found.id != request.id:
        return _build_failure(request, "it answers something else than what was asked")
    return found


def _parse_error(text: bytes, request: types.JSONRPCRequest) -> types.JSONRPCError:
    """Return the error that stands in an answer that is none; a server may say it with another status than 200."""
    try:
        found = types.jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError:
        found = None
    error = found.error if isinstance(found, types.JSONRPCError) else types.ErrorData(code=types.INTERNAL_ERROR, message="")
    return types.JSONRPCError(jsonrpc="2.0", id=request.id, error=error)


def _build_failure(request: types.JSONRPCRequest, why: str) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=request.id, error=types.ErrorData(code=types.PARSE_ERROR, message=why))
