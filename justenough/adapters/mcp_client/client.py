"""One conversation with an upstream MCP server, which is opened, used and ended within its timeout. Errors contain no secret of ours."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import ContextVar
from functools import cache
from typing import Any, TypeVar

import anyio
import httpx
from mcp import Client, types
from mcp.shared.exceptions import MCPError
from pydantic import TypeAdapter, ValidationError

from justenough.adapters.mcp_client.errors import Unanswered
from justenough.adapters.mcp_client.transport import McpTransport, UnacceptableResponse
from justenough.adapters.outbound.dns_guard import ForbiddenAddress, UnknownHost
from justenough.adapters.outbound.pinned_client import open_client
from justenough.domain.catalog.mcp_tool_list import MAX_TOOLS, ToolList, build_tool_list
from justenough.domain.core.errors import GiveUp, InvalidInput, JustEnoughError, Problem
from justenough.domain.tools.definitions import McpServerDef

MAX_TOOL_PAGES = 50
GOODBYE_TIMEOUT_S = 2.0
"""Seconds for ending the session at the server."""
CALL_RESULT: TypeAdapter[types.CallToolResult | types.InputRequiredResult] = TypeAdapter(types.CallToolResult | types.InputRequiredResult)
T = TypeVar("T")
_in_conversation: ContextVar[bool] = ContextVar("talking", default=False)


class McpConversation:
    """An open conversation with one server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list_tools(self) -> ToolList:
        """Return all of the server's tools. Raises InvalidInput if they are not a list that can be reviewed."""
        tools: list[Any] = []
        cursor: str | None = None
        for _ in range(MAX_TOOL_PAGES):
            page = await self._client.list_tools(cursor=cursor, cache_mode="bypass")
            tools += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None or len(tools) > MAX_TOOLS:
                # In a thread: a long list takes a while to check, and this loop serves every job of the worker.
                return await asyncio.to_thread(build_tool_list, "the upstream's tools", tools)
        raise InvalidInput("the upstream's tools", (Problem("", f"more than {MAX_TOOL_PAGES} pages"),))

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """Return the result of a call. Raises Unanswered if the server asks for input instead (MCP from 2026-07-28)."""
        # Not `session.call_tool`: it validates the answer against a schema that the server chose, which can take hours.
        params = types.CallToolRequestParams(name=name, arguments=dict(arguments))
        result = await self._client.session.send_request(types.CallToolRequest(params=params), CALL_RESULT)
        if not isinstance(result, types.CallToolResult) or result.result_type != "complete":
            raise Unanswered(f"the upstream asks for input that the gateway does not give ({result.result_type})")
        return result


async def run_conversation(upstream: McpServerDef, headers: Mapping[str, str], callback: Callable[[McpConversation], Awaitable[T]]) -> T:
    """Run a conversation and return the callback's result. `headers` hold the credential. Raises Unanswered, and InvalidInput (list_tools)."""
    _silence_loggers()
    talking = _in_conversation.set(True)
    results: list[T] = []
    failure: GiveUp | None = None
    try:
        async with open_client(private=upstream.allow_private, timeout=upstream.timeout, headers=headers) as http:
            transport = McpTransport(http, upstream.url)
            # Not asyncio's timeout: everything in an anyio scope stays cancelled, whatever the client still tries to send.
            with anyio.move_on_after(upstream.timeout):
                try:
                    async with Client(transport.open_streams(), cache=None) as client:
                        results.append(await callback(McpConversation(client)))
                except Exception as error:  # noqa: BLE001 - the client has many errors, and groups of them
                    # A result counts even if the conversation then ended badly.
                    failure = _to_give_up(error, transport)
            # This is not in a `finally`, because it must not delay the revocation of the credential when the broker closes. ValueError: the
            # server may have set a cookie that a header cannot contain.
            with anyio.move_on_after(GOODBYE_TIMEOUT_S), suppress(httpx.HTTPError, OSError, ValueError, JustEnoughError):
                await transport.end_session()
    finally:
        _in_conversation.reset(talking)
    if not results:
        # Without a cause, which may hold the request's headers.
        raise failure or Unanswered(f"the upstream took longer than {upstream.timeout} s") from None
    return results[0]


def _to_give_up(error: Exception, transport: McpTransport) -> GiveUp:
    """Return the error to raise for the first known exception in a group. For a network error, it names only the type."""
    for leaf in _leaf_errors(error):
        why = ""
        match leaf:
            case InvalidInput() | Unanswered():
                return leaf
            case ForbiddenAddress() | UnacceptableResponse():
                why = str(leaf)
            case UnknownHost():
                why = "the upstream's host cannot be resolved now"
            case MCPError():
                cause = f"HTTP {transport.last_status}" if transport.last_status >= 400 else leaf.error.message
                why = f"the upstream answers with an error: {cause}"
            case ValidationError() | RuntimeError():
                why = "the upstream's response does not conform to MCP, or to its own schema"
        if why:
            return Unanswered(why)
    return Unanswered(f"the upstream does not answer ({type(next(_leaf_errors(error))).__name__})")


def _leaf_errors(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaf_errors(inner)
    else:
        yield error


@cache
def _silence_loggers() -> None:
    """Silence the client's loggers: they log messages that they cannot read, and servers may echo our secrets."""
    for name in ("mcp.client", "client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # The server in our own gateway uses these loggers too, and must not be silenced.
    for name in ("mcp.shared.jsonrpc_dispatcher", "mcp.shared.dispatcher"):
        logging.getLogger(name).addFilter(lambda _: not _in_conversation.get())
