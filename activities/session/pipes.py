"""Reading a pipe's end on the event loop. Nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

LIMIT = 64 * 1024


async def reading(end: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Return a reader of a pipe's end, and what to close: closing it ends the reader's text."""
    reader = asyncio.StreamReader(limit=LIMIT)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(end, "rb", 0))
    return reader, transport


@asynccontextmanager
async def readable(handle: int) -> AsyncIterator[asyncio.Event]:
    """Give an event that is set once a handle becomes readable (a pidfd does when its process is gone)."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, event.set)
    try:
        yield event
    finally:
        loop.remove_reader(handle)
