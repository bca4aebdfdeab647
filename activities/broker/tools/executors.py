"""Executes a tool call with the credential's fields: by SQL, by HTTP, or by an upstream MCP server. Knows no policy, redacts nothing.

SQL: parameters are bound; time, rows and bytes are limited; reads are read-only. HTTP: only checked addresses, no redirects, limited in time
and bytes. MCP: calls only after checking on the same connection that the server's tool list is the reviewed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from codecs import getincrementaldecoder
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import httpx
import psycopg
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg.types.numeric import FloatLoader

from justenough.adapters.mcp_client.errors import Unanswered
from justenough.adapters.outbound.dns_guard import ForbiddenAddress, UnknownHost
from justenough.adapters.outbound.pinned_client import UNCOMPRESSED_ENCODINGS, iter_chunks, open_client
from justenough.domain.catalog.mcp_tool_list import ToolList
from justenough.domain.catalog.mcp_upstreams import UpstreamTool
from justenough.domain.core.errors import InvalidInput
from justenough.domain.tools.call import HttpRequest, ToolCall, fill_headers
from justenough.domain.tools.definitions import Http, McpServerDef, Sql

if TYPE_CHECKING:
    from psycopg.abc import Buffer

    from justenough.adapters.mcp_client.client import McpConversation

CONNECT_TIMEOUT_S = 5
ROLLBACK_CLASS = "40"
"""PostgreSQL's class of errors after which the transaction was rolled back."""
EFFECT_UNKNOWN = "it is not known whether anything was changed"

Rows = psycopg.AsyncCursor[dict[str, Any]]
IsReviewed = Callable[[UpstreamTool, ToolList], bool]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Result:
    """An answer as the tool returned it. Its repr omits the content, which may contain the credential."""

    content: bytes
    failed: bool = False
    """Whether it is an error for the model."""
    cut: bool = False
    """Whether the answer was truncated."""

    def __repr__(self) -> str:
        return f"Result({len(self.content)} bytes, failed={self.failed}, cut={self.cut})"


def failure(why: str) -> Result:
    return Result(why.encode(), failed=True)


class _ResultTooLarge(Exception):
    """The statement returned more than may be passed on."""


async def run_sql(sql: Sql, values: Mapping[str, Any], fields: Mapping[str, str], *, writes: bool) -> Result:
    """Return the statement's result: rows as JSON, or how many it changed. Database errors become a failed `Result`; nothing is raised for them.

    If the result is too large, a write is rolled back and a read is truncated.
    """
    if not {"username", "password"} <= fields.keys():
        return failure("the credential is not a database login: it has no username and password")
    options = f"-c statement_timeout={sql.timeout * 1000} -c idle_in_transaction_session_timeout={(sql.timeout + CONNECT_TIMEOUT_S) * 1000}"
    login = {"user": fields["username"], "password": fields["password"]}
    bound = {name: Jsonb(value) if isinstance(value, Mapping) else value for name, value in values.items()}
    # Whether the statement may have changed data: if the connection breaks during the commit, that is unknown. The database
    # rolls back each statement that it cancels itself.
    written = False
    try:
        conninfo = make_conninfo(sql.dsn, **login, connect_timeout=CONNECT_TIMEOUT_S, options=options, application_name="justenough-tool")
        connecting = psycopg.AsyncConnection.connect(conninfo, row_factory=dict_row)
        async with asyncio.timeout(sql.timeout + CONNECT_TIMEOUT_S), await connecting as connection:
            for name in ("float4", "float8"):
                connection.adapters.register_loader(name, _JsonFloatLoader)
            written = writes
            await connection.set_read_only(not writes)
            return await (_write_sql if writes else _read_sql)(connection.cursor(), sql, bound)
    except (TimeoutError, psycopg.errors.QueryCanceled) as error:
        known = isinstance(error, psycopg.errors.QueryCanceled) or not written
        return failure(f"the database took longer than {sql.timeout} s; {'nothing was changed' if known else EFFECT_UNKNOWN}")
    except _ResultTooLarge:
        return failure(f"the statement returned more than {sql.rows} rows or {sql.answer:,} bytes, so it was rolled back")
    except (psycopg.Error, ValueError, RecursionError) as error:
        state, message = (error.sqlstate, error.diag.message_primary) if isinstance(error, psycopg.Error) else (None, None)
        # A deadlock, for example, is an answer: the transaction was rolled back, and the text names no host or user.
        if isinstance(error, psycopg.OperationalError) and not (state or "").startswith(ROLLBACK_CLASS):
            # The error's own text names host and user.
            why = f"the database does not answer ({state or 'no connection'}){f'; {EFFECT_UNKNOWN}' if written else ''}"
        elif message is None:
            # An argument or a value of the answer cannot be converted, such as the date `infinity`. Nothing was committed.
            why = f"the statement failed: {error}"
        else:
            why = f"the database rejected the statement: {message} ({state or '-'})"
        return failure(why)


async def _read_sql(cursor: Rows, sql: Sql, values: Mapping[str, Any]) -> Result:
    """Return the first rows. Fetches one row at a time, and never those beyond the limit."""
    collected = _BoundedRows(sql)
    # Close the iterator here, not when it is garbage-collected: closing it stops the database.
    async with contextlib.aclosing(cast("AsyncGenerator[dict[str, Any]]", cursor.stream(sql.statement.encode(), values))) as rows:
        async for row in rows:
            if not collected.add(row):
                return Result(_json({"rows": collected.rows, "cut": True}), cut=True)
    return Result(_json({"rows": collected.rows}))


async def _write_sql(cursor: Rows, sql: Sql, values: Mapping[str, Any]) -> Result:
    """Return the statement's rows, or how many rows it changed."""
    await cursor.execute(sql.statement.encode(), values)
    if cursor.description is None:
        return Result(_json({"changed": cursor.rowcount}))
    collected = _BoundedRows(sql)
    async for row in cursor:
        if not collected.add(row):
            raise _ResultTooLarge
    return Result(_json({"rows": collected.rows}))


class _JsonFloatLoader(FloatLoader):
    """Reads NaN and the infinities as texts, as PostgreSQL's own to_json does: JSON has no such numbers."""

    def load(self, data: Buffer) -> Any:
        number = super().load(data)
        return number if math.isfinite(number) else bytes(data).decode()


class _BoundedRows:
    """Collects rows up to the tool's limits."""

    def __init__(self, sql: Sql) -> None:
        self._sql = sql
        self._size = 0
        self.rows: list[dict[str, Any]] = []

    def add(self, row: dict[str, Any]) -> bool:
        """Add a row; return False if it exceeds a limit."""
        self._size += len(_json(row)) + 2
        if len(self.rows) >= self._sql.rows or self._size > self._sql.answer:
            return False
        self.rows.append(row)
        return True


def _json(value: Any) -> bytes:
    return json.dumps(value, default=str, ensure_ascii=False).encode("utf-8", "replace")


async def run_http(http: Http, request: HttpRequest) -> Result:
    """Return the upstream's response. Upstream errors become a failed `Result`; nothing is raised for them."""
    effect = "" if http.method == "GET" else f"; {EFFECT_UNKNOWN}"
    try:
        async with asyncio.timeout(http.timeout):
            return await _send_http(http, request)
    except ForbiddenAddress as error:
        return failure(str(error))
    except UnknownHost:
        return failure("the upstream's host name cannot be resolved now")
    except (TimeoutError, httpx.TimeoutException):
        return failure(f"the upstream took longer than {http.timeout} s{effect}")
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # The errors' texts may contain the request's headers.
        effect = "" if isinstance(error, httpx.ConnectError | httpx.InvalidURL) else effect
        return failure(f"the upstream does not answer ({type(error).__name__}){effect}")


async def _send_http(http: Http, request: HttpRequest) -> Result:
    async with (
        open_client(private=http.allow_private, timeout=http.timeout, headers=request.headers) as client,
        client.stream(http.method, request.url, json=request.body) as answer,
    ):
        if answer.is_redirect:
            return failure(f"the upstream answers with a redirect (HTTP {answer.status_code}), which is not followed")
        if answer.headers.get("content-encoding", "").lower() not in UNCOMPRESSED_ENCODINGS:
            return failure("the upstream compressed its response despite `Accept-Encoding: identity`")
        received = bytearray()
        async for chunk in iter_chunks(answer):
            received += chunk
            if len(received) > http.answer:
                break
    content, cut = bytes(received[: http.answer]), len(received) > http.answer
    try:
        # The cut may be within a character.
        is_text = "\0" not in getincrementaldecoder("utf-8")().decode(content, final=not cut)
    except UnicodeDecodeError:
        is_text = False
    if not is_text:
        # The redactor would not find the credential in UTF-16, nor one with umlauts in Latin-1.
        content, cut = b"the upstream's response is not UTF-8 text, so it is not passed on", False
    if answer.is_success:
        return Result(content, failed=not is_text, cut=cut)
    return Result(f"HTTP {answer.status_code}\n".encode() + content, failed=True, cut=cut)


@dataclass(frozen=True, slots=True)
class ToolsChanged:
    """A server's tools differ from the reviewed ones, so nothing was called."""

    tool: UpstreamTool
    shown: ToolList


async def run_mcp(
    tool: UpstreamTool, upstream: McpServerDef, call: ToolCall, fields: Mapping[str, str], *, is_reviewed: IsReviewed
) -> Result | ToolsChanged:
    """Return the upstream's answer. `fields`: the credential's, and the job's data scope. Raises InvalidInput if one is missing.

    `is_reviewed` notes which tools the server shows, and returns whether they are the reviewed ones.
    """
    headers, called = fill_headers(upstream.headers, fields), False

    async def call_tool(conversation: McpConversation) -> Result | ToolsChanged:
        shown = await conversation.list_tools()
        # In a thread: the digest of a long list takes a while.
        if not await asyncio.to_thread(is_reviewed, tool, shown):
            return ToolsChanged(tool, shown)
        nonlocal called
        called = True
        answer = await conversation.call_tool(tool.own_name, call.arguments)
        # Return the text for models; if there is none, return the structured content for programs.
        parts = [_block_text(block) for block in answer.content]
        if answer.structured_content is not None and not any(block.type == "text" for block in answer.content):
            parts += [await asyncio.to_thread(json.dumps, answer.structured_content, ensure_ascii=False)]
        return _text_result("\n".join(parts), upstream, failed=answer.is_error)

    try:
        return await _converse(upstream, headers, call_tool)
    except (Unanswered, InvalidInput) as error:
        # The server's own text comes last, and may be long: it must be redacted before anything follows it.
        return _text_result(f"it is not known whether the call had any effect: {error}" if called else str(error), upstream, failed=True)


async def list_mcp_tools(upstream: McpServerDef, fields: Mapping[str, str]) -> Result:
    """Return the tools that an upstream shows now, as a reviewer sees them. Raises InvalidInput if a field is missing."""
    headers = fill_headers(upstream.headers, fields)
    try:
        tools = await _converse(upstream, headers, lambda conversation: conversation.list_tools())
    except (Unanswered, InvalidInput) as error:
        return _text_result(str(error), upstream, failed=True)
    return Result((await asyncio.to_thread(lambda: tools.text)).encode("utf-8", "replace"))


def _text_result(text: str, upstream: McpServerDef, *, failed: bool) -> Result:
    """Return a text as a call's result, cut to the length that the upstream may answer with."""
    content = text.encode("utf-8", "replace")
    return Result(content[: upstream.answer], failed=failed, cut=len(content) > upstream.answer)


async def _converse(upstream: McpServerDef, headers: Mapping[str, str], callback: Callable[[McpConversation], Awaitable[T]]) -> T:
    def load() -> Callable[..., Awaitable[T]]:
        from justenough.adapters.mcp_client.client import run_conversation  # noqa: PLC0415 - loads the MCP SDK, which most workers do without

        return run_conversation

    # In a thread: loading it the first time takes most of a second, and this loop serves every job of the worker.
    run_conversation = await asyncio.to_thread(load)
    return await run_conversation(upstream, headers, callback)


def _block_text(block: Any) -> str:
    """Return one content block of MCP as text, or a note of its type: a secret could not be scrubbed from a picture."""
    match block.type:
        case "text":
            return str(block.text)
        case "resource" if hasattr(block.resource, "text"):
            return f"{block.resource.uri}\n{block.resource.text}"
        case "resource_link":
            return f"[{block.name}: {block.uri}]"
    kind = getattr(getattr(block, "resource", block), "mime_type", None)
    return f"[{block.type} {kind or 'of no stated type'} is not passed on]"
