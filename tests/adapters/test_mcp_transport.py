"""What a server sends must not take the event loop's time from other jobs. An invalid answer is reported as what it is."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from justenough.adapters.mcp_client.client import McpConversation, run_conversation
from justenough.adapters.mcp_client.errors import Unanswered
from justenough.adapters.mcp_client.transport import FREE_FORM, MAX_VALUES
from justenough.domain.core.errors import GiveUp
from justenough.domain.core.json_values import count_values
from justenough.domain.tools.definitions import McpServerDef
from tests.activities.broker.mcp_server import McpServer, serve_mcp

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LONG_LINE = b"data: " + b"x" * 3_900_000


UNCOUNTED = "not counting schemas and structured content"


@pytest.fixture
def crumbling() -> Iterator[str]:
    """A server that answers with one very long line, and then goes on byte by byte."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listening.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(HEAD + b"%x\r\n%b\r\n" % (len(LONG_LINE), LONG_LINE))
                    while True:
                        connection.sendall(b"1\r\nx\r\n" * 10_000)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp"
        thread.join()


async def test_a_line_that_arrives_byte_by_byte_does_not_block_the_event_loop(crumbling: str) -> None:
    longest, last = 0.0, time.monotonic()

    async def measure() -> None:
        nonlocal longest, last
        while True:
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    measuring = asyncio.create_task(measure())
    with pytest.raises(Unanswered, match="took longer than 2 s"):
        await run_conversation(
            McpServerDef(url=crumbling, allow_private=True, timeout=2), {}, lambda conversation: conversation.list_tools()
        )
    measuring.cancel()
    # Splitting the whole line again at each byte took 49 s.
    assert longest < 10


@pytest.fixture(scope="module")
def hub() -> Iterator[McpServer]:
    with serve_mcp() as listening:
        yield listening


@pytest.mark.parametrize(
    "mode, at, why",
    [
        ("other", "tools/call", "the upstream answers with an error: the response answers a different request"),
        ("ended", "tools/call", "the upstream answers with an error: the stream ended without a response to the request"),
        ("unfit", "tools/call", "the upstream's response does not conform to MCP, or to its own schema"),
        ("unsendable", "tools/call", "the upstream's session id has characters that a header cannot contain"),
        ("bulky", "tools/call", f"the upstream sent a message with more than 10,000 values, {UNCOUNTED}"),
        ("schemas", "tools/list", "the upstream sent more than 100,000 values, not counting structured content"),
        ("chatty", "tools/call", "the upstream sent more than 10,000 messages"),
        ("paging", "tools/list", "the upstream's tools: more than 50 pages"),
    ],
)
async def test_an_invalid_answer_is_reported_as_what_it_is(hub: McpServer, mode: str, at: str, why: str) -> None:
    async def converse(conversation: McpConversation) -> None:
        await conversation.list_tools()
        await conversation.call_tool("get_issue", {"number": 1})

    with hub.misbehave(mode, at=at), pytest.raises(GiveUp) as failed:
        await run_conversation(McpServerDef(url=hub.url, allow_private=True), {}, converse)
    assert str(failed.value) == why


async def test_an_answer_counts_although_its_session_cannot_be_ended(hub: McpServer) -> None:
    with hub.misbehave("baking"):
        result = await run_conversation(
            McpServerDef(url=hub.url, allow_private=True), {}, lambda conversation: conversation.call_tool("get_issue", {"number": 1})
        )
    assert result.content == []


@pytest.mark.parametrize(
    "value, many",
    [
        (None, False),
        ({"content": [{"type": "text", "text": "x" * 100_000}] * 3_000}, False),
        ({"content": [0] * MAX_VALUES}, True),
        ({"content": [{"annotations": {"audience": [0] * MAX_VALUES}}]}, True),
        ({"inputRequests": {str(number): 0 for number in range(MAX_VALUES)}}, True),
        ({"content": [], "structuredContent": {"rows": [0] * MAX_VALUES}}, False),
        ({"tools": [{"inputSchema": {"properties": {str(number): {} for number in range(MAX_VALUES)}}}]}, False),
    ],
)
def test_the_values_of_a_message_are_counted_where_the_sdk_validates_them(value: object, many: bool) -> None:
    assert (count_values(value, MAX_VALUES, uncounted=FREE_FORM) > MAX_VALUES) == many


async def test_a_server_whose_name_cannot_be_resolved_is_reported() -> None:
    with pytest.raises(Unanswered, match=r"^the upstream's host cannot be resolved now$"):
        await run_conversation(McpServerDef(url="https://nowhere.invalid/mcp"), {}, lambda conversation: conversation.list_tools())
