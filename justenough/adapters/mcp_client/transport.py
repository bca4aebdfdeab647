"""Carries the MCP SDK's messages over streamable HTTP (MCP, "Transports"): bounded in bytes, without redirects, compression or logs.

The SDK's own transport follows redirects within a server, opens streams that are not read here, and logs messages that it cannot read, which
may contain secrets that we sent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, get_args

import anyio
import httpx
from anyio.abc import TaskGroup
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp import types
from mcp.shared.message import ClientMessageMetadata, SessionMessage
from pydantic import ValidationError

from justenough.adapters.outbound.pinned_client import UNCOMPRESSED_ENCODINGS, iter_chunks
from justenough.domain.core.json_values import count_values

MAX_RECEIVED_BYTES = 4 * 1024 * 1024
"""Bytes of all responses of one conversation."""
MAX_MESSAGES = 10_000
"""Messages of one conversation that the server sends."""
MAX_VALUES, MAX_ALL_VALUES = 10_000, 100_000
"""JSON values of one message, without those in FREE_FORM; and of all messages, without those in STRUCTURED. While the SDK validates them, every
other job waits: two million invalid ones took 108 s.
"""
STRUCTURED = frozenset({"structuredContent", "_meta"})
FREE_FORM = STRUCTURED | {"inputSchema", "outputSchema"}
"""Fields whose content the SDK hardly validates."""
SESSION_HEADER, VERSION_HEADER = "mcp-session-id", "mcp-protocol-version"
ACCEPT_HEADERS = {"accept": "application/json, text/event-stream"}

KNOWN_BLOCKS = frozenset(get_args(block.model_fields["type"].annotation)[0] for block in get_args(types.ContentBlock))
"""Types of content in the result of a call."""

IncomingMessages = MemoryObjectReceiveStream[SessionMessage | Exception]
OutgoingMessages = MemoryObjectSendStream[SessionMessage]
IncomingSink = MemoryObjectSendStream[SessionMessage | Exception]


class UnacceptableResponse(Exception):
    """The server broke a rule of this transport. The message names the rule, and does not quote the server."""


class McpTransport:
    """The transport of one conversation with one server."""

    def __init__(self, http: httpx.AsyncClient, url: str) -> None:
        self._http = http
        self._url = url
        self._received = self._messages = self._values = 0
        self._version = ""
        self.last_status = 0
        """HTTP status of the newest response."""
        self.session_id = ""
        """The server's id of this conversation; empty if it has none."""

    @asynccontextmanager
    async def open_streams(self) -> AsyncIterator[tuple[IncomingMessages, OutgoingMessages]]:
        """Carry messages until the block ends. Raises UnacceptableResponse and httpx's errors, in groups."""
        inbox, incoming = anyio.create_memory_object_stream[SessionMessage | Exception]()
        outgoing, outbox = anyio.create_memory_object_stream[SessionMessage]()
        async with inbox, incoming, outgoing, outbox, anyio.create_task_group() as tasks:
            tasks.start_soon(self._send_outgoing, outbox, inbox, tasks)
            try:
                yield incoming, outgoing
            finally:
                tasks.cancel_scope.cancel()

    async def end_session(self) -> None:
        """End the session at the server, if it has one."""
        if self.session_id:
            await self._http.delete(self._url, headers=self._headers(None))

    async def _send_outgoing(self, outbox: MemoryObjectReceiveStream[SessionMessage], inbox: IncomingSink, tasks: TaskGroup) -> None:
        async for outgoing in outbox:
            if isinstance(outgoing.message, types.JSONRPCRequest):
                # Run this in a separate task, because the server may send a request before it answers this one.
                tasks.start_soon(self._send_request, outgoing, outgoing.message, inbox)
            else:
                async with self._post(outgoing):
                    continue

    async def _send_request(self, outgoing: SessionMessage, request: types.JSONRPCRequest, inbox: IncomingSink) -> None:
        """Post a request, and pass on the server's messages until the request is answered."""
        if request.method == "initialize":
            self._version = ""
        async with self._post(outgoing) as response:
            async for text in self._message_bodies(response):
                message = _parse_message(text, request, is_error=response.status_code >= 400)
                self._require_few_values(message)
                await inbox.send(SessionMessage(message))
                if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                    return
        await inbox.send(SessionMessage(_build_failure(request, "the stream ended without a response to the request")))

    @asynccontextmanager
    async def _post(self, outgoing: SessionMessage) -> AsyncIterator[httpx.Response]:
        body = outgoing.message.model_dump(by_alias=True, mode="json", exclude_unset=True)
        async with self._http.stream("POST", self._url, json=body, headers=self._headers(outgoing)) as response:
            self.last_status = response.status_code
            if 300 <= response.status_code < 400:
                raise UnacceptableResponse(f"the upstream answers with a redirect (HTTP {response.status_code}), which is not followed")
            if response.headers.get("content-encoding", "").lower() not in UNCOMPRESSED_ENCODINGS:
                raise UnacceptableResponse("the upstream compressed its response despite `Accept-Encoding: identity`")
            session_id = response.headers.get(SESSION_HEADER, "")
            if not (session_id.isascii() and session_id.isprintable()):
                raise UnacceptableResponse("the upstream's session id has characters that a header cannot contain")
            self.session_id = session_id or self.session_id
            yield response

    def _headers(self, outgoing: SessionMessage | None) -> dict[str, str]:
        metadata = outgoing.metadata if outgoing else None
        sdk_headers = (metadata.headers or {}) if isinstance(metadata, ClientMessageMetadata) else {}
        lowered = {name.lower(): value for name, value in sdk_headers.items()}
        # If the SDK adds no version to a message, send the version that it added last.
        self._version = lowered.get(VERSION_HEADER, self._version)
        known = {SESSION_HEADER: self.session_id, VERSION_HEADER: self._version}
        return {**ACCEPT_HEADERS, **{name: value for name, value in known.items() if value}, **lowered}

    async def _message_bodies(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Yield each message as it arrives: the data of each event of a stream (WHATWG HTML, server-sent events), or the whole body."""
        if response.headers.get("content-type", "").partition(";")[0].strip().lower() != "text/event-stream":
            yield b"".join([chunk async for chunk in self._chunks(response)])
            return
        rest, data, event_type = bytearray(), list[bytes](), b""
        async for chunk in self._chunks(response):
            rest += chunk
            if b"\n" not in chunk:
                # A line may arrive in very many chunks, so do not split all of it again at each.
                continue
            *lines, rest = rest.split(b"\n")
            for line in (bytes(line).rstrip(b"\r") for line in lines):
                name, _, value = line.partition(b":")
                if name == b"data":
                    data.append(value.removeprefix(b" "))
                elif name == b"event":
                    event_type = value.removeprefix(b" ")
                elif not line:
                    # Other events are not messages: some servers send them to show that they are alive.
                    if any(data) and event_type in {b"", b"message"}:
                        yield b"\n".join(data)
                    data, event_type = [], b""

    def _require_few_values(self, message: types.JSONRPCMessage) -> None:
        """Raise UnacceptableResponse if the SDK would take too long to validate this message, or all messages together."""
        content = getattr(message, "result", None) or getattr(message, "params", None)
        self._messages += 1
        self._values += count_values(content, MAX_ALL_VALUES, uncounted=STRUCTURED)
        if self._messages > MAX_MESSAGES:
            raise UnacceptableResponse(f"the upstream sent more than {MAX_MESSAGES:,} messages")
        if self._values > MAX_ALL_VALUES:
            raise UnacceptableResponse(f"the upstream sent more than {MAX_ALL_VALUES:,} values, not counting structured content")
        if count_values(content, MAX_VALUES, uncounted=FREE_FORM) > MAX_VALUES:
            why = f"the upstream sent a message with more than {MAX_VALUES:,} values, not counting schemas and structured content"
            raise UnacceptableResponse(why)

    async def _chunks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        async for chunk in iter_chunks(response):
            self._received += len(chunk)
            if self._received > MAX_RECEIVED_BYTES:
                raise UnacceptableResponse(f"the upstream sent more than {MAX_RECEIVED_BYTES:,} bytes")
            yield chunk


def _parse_message(text: bytes, request: types.JSONRPCRequest, *, is_error: bool) -> types.JSONRPCMessage:
    """Return a server's message, or an error for the request if the text is not a message, answers another request, or came with an error status."""
    try:
        message = types.jsonrpc_message_adapter.validate_json(text, by_name=False)
    except ValidationError:
        message = None
    if is_error:
        # A server may send its own error with an error status.
        error = message.error if isinstance(message, types.JSONRPCError) else types.ErrorData(code=types.INTERNAL_ERROR, message="")
        return types.JSONRPCError(jsonrpc="2.0", id=request.id, error=error)
    if message is None:
        return _build_failure(request, "the response is not an MCP message")
    if isinstance(message, types.JSONRPCResponse | types.JSONRPCError) and message.id != request.id:
        return _build_failure(request, "the response answers a different request")
    if isinstance(message, types.JSONRPCResponse) and request.method == "tools/call" and isinstance(message.result.get("content"), list):
        message.result["content"] = [_to_known_block(block) for block in message.result["content"]]
    return message


def _to_known_block(block: Any) -> Any:
    """Return a content block. If its type is newer than the SDK, return an empty file that names it: the SDK would reject the whole result."""
    kind = block.get("type") if isinstance(block, dict) else None
    if not isinstance(kind, str) or kind in KNOWN_BLOCKS:
        return block
    return {"type": "resource", "resource": {"uri": "unknown:", "mimeType": f"of the unknown type {kind}", "blob": ""}}


def _build_failure(request: types.JSONRPCRequest, why: str) -> types.JSONRPCError:
    return types.JSONRPCError(jsonrpc="2.0", id=request.id, error=types.ErrorData(code=types.PARSE_ERROR, message=why))
