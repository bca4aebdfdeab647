"""One conversation with an upstream MCP server: opened, used, ended, within its time. What goes wrong there says what, and no secret."""

from __future__ import annotations

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
from pydantic import ValidationError

from justenough.adapters.mcp_client.transport import McpTransport, UnacceptableResponse
from justenough.adapters.outbound.dns_guard import NotReached, UnknownHost
from justenough.adapters.outbound.webhook_client import PinnedTransport
from justenough.domain.catalog.mcp_tool_list import MAX_TOOLS, ToolList, build_tool_list
from justenough.domain.core.errors import GiveUp, InvalidInput, Problem
from justenough.domain.tools.definitions import McpServerDef

MAX_TOOL_PAGES = 50
GOODBYE_TIMEOUT_S = 2.0
"""Seconds for telling a server that its session is over."""
MAX_MESSAGE_CHARS = 2_000
T = TypeVar("T")
_in_conversation: ContextVar[bool] = ContextVar("talking", default=False)


class Unanswered(GiveUp):
    """A conversation that came to nothing. The message may hold what the server said of it: whoever passes it on takes secrets out."""


class McpConversation:
    """One with one server."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def list_tools(self) -> ToolList:
        """Return what the server shows now, page after page. Raises InvalidInput where that is no list that can be reviewed."""
        found: list[Any] = []
        cursor: str | None = None
        for _ in range(MAX_TOOL_PAGES):
            page = await self._client.list_tools(cursor=cursor, cache_mode="bypass")
            found += [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in page.tools]
            cursor = page.next_cursor
            if cursor is None or len(found) > MAX_TOOLS:
                return build_tool_list("the upstream's tools", found)
        raise InvalidInput("the upstream's tools", (Problem("", f"more than {MAX_TOOL_PAGES} pages"),))

    async def call_tool(self, name: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        """Call a tool."""
        return await self._client.session.call_tool(name, dict(arguments))


async def run_conversation(upstream: McpServerDef, headers: Mapping[str, str], callback: Callable[[McpConversation], Awaitable[T]]) -> T:
    """Return what comes of a conversation. `headers`: with the credential in them. Raises Unanswered, InvalidInput (Conversation.tools)."""
    _silence_loggers()
    talking = _in_conversation.set(True)
    sent = {"user-agent": "JustEnough", "accept-encoding": "identity", **headers}
    done: list[T] = []
    try:
        # Not asyncio's limit: what is cancelled here stays cancelled, whatever the client still tries to say on its way out.
        with anyio.move_on_after(upstream.timeout):
            async with httpx.AsyncClient(
                transport=PinnedTransport(private=upstream.allow_private),
                headers=sent,
                timeout=upstream.timeout,
                trust_env=False,
                follow_redirects=False,
            ) as http:
                await _converse(McpTransport(http, upstream.url), callback, done)
    finally:
        _in_conversation.reset(talking)
    if not done:
        raise Unanswered(f"the upstream took longer than {upstream.timeout} s")
    return done[0]


async def _converse(wire: McpTransport, callback: Callable[[McpConversation], Awaitable[T]], results: list[T]) -> None:
    try:
        async with Client(wire.open_streams(), cache=None) as client:
            results.append(await callback(McpConversation(client)))
    except Exception as error:  # noqa: BLE001 - a client for whatever servers say has many errors, and groups of them
        # What was had is had, however badly the conversation ended. Nothing is kept as a cause: it may hold the request's headers.
        if not results:
            raise _to_give_up(error, wire) from None
    with anyio.move_on_after(GOODBYE_TIMEOUT_S), suppress(httpx.HTTPError, OSError):
        await wire.end_session()


def _to_give_up(error: Exception, wire: McpTransport) -> GiveUp:
    """Return what is told of an error: the innermost that means something, and of those of the network their kind alone."""
    for one in _leaf_errors(error):
        if isinstance(one, InvalidInput | Unanswered):
            return one
        if why := _describe_failure(one, wire):
            return Unanswered(why)
    return Unanswered(f"the upstream does not answer ({type(next(_leaf_errors(error))).__name__})")


def _describe_failure(error: BaseException, wire: McpTransport) -> str:
    match error:
        case NotReached() | UnacceptableResponse():
            return str(error)
        case UnknownHost():
            return "the upstream's host is not known now"
        case httpx.TimeoutException():
            return "the upstream takes too long"
        case MCPError():
            said = f"HTTP {wire.last_status}" if wire.last_status >= 400 else error.error.message[:MAX_MESSAGE_CHARS]
            return f"the upstream answers with an error: {said}"
        case ValidationError() | RuntimeError():
            return "the upstream answers with what does not fit MCP, or its own schema"
    return ""


def _leaf_errors(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaf_errors(inner)
    else:
        yield error


class _MuteConversations(logging.Filter):
    """Lets nothing through that is said while a conversation is on."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is logged."""
        del record
        return not _in_conversation.get()


@cache
def _silence_loggers() -> None:
    """Have no log of the client's: what it cannot read it would log, and servers may send back what they were sent."""
    for name in ("mcp.client", "client"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # Our own gateway's server logs by these too, and is to be heard.
    for name in ("mcp.shared.jsonrpc_dispatcher", "mcp.shared.dispatcher"):
        logging.getLogger(name).addFilter(_MuteConversations())
