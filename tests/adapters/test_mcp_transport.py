"""What a server sends must not take the event loop's time from other jobs."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from justenough.adapters.mcp_client.client import run_conversation
from justenough.adapters.mcp_client.errors import Unanswered
from justenough.domain.tools.definitions import McpServerDef

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LONG_LINE = b"data: " + b"x" * 3_900_000


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
