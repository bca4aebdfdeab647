"""Copies a job's output from its pipe to a sink: redacted, in batches, bounded. Never stops reading, so that the job never blocks on
output.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

from justenough.domain.core.redaction import Redactor

MAX_BATCH_BYTES = 64 * 1024
FLUSH_INTERVAL_S = 0.5
"""Maximum seconds until a line is in the sink."""
MAX_OUTPUT_BYTES = 10 * 1024 * 1024
"""Bytes of one job's output that are stored; the rest is dropped."""
LINGER_TIMEOUT_S = 2.0
"""Seconds to wait for the output of a job that has ended, in case another process still has its pipe open."""
READER_LIMIT_BYTES = 64 * 1024
REDACTION_THREAD = ThreadPoolExecutor(1, thread_name_prefix="redaction")
"""Redacts the output of all jobs, one batch of each in turn. More threads would not be faster, and would slow the event loop."""
Sink = Callable[[str], Awaitable[None]]


@dataclass(slots=True, eq=False)
class LogCapture:
    """Copies one job's output. Calls the sink with one text at a time."""

    redactor: Redactor
    sink: Sink
    max_bytes: int = MAX_OUTPUT_BYTES
    bytes_seen: int = 0
    """Bytes that the job printed, stored or not."""
    _reader: asyncio.StreamReader = field(init=False)
    _transport: asyncio.ReadTransport = field(init=False)
    _task: asyncio.Task[None] = field(init=False)
    _decoder: codecs.IncrementalDecoder = field(init=False)

    @classmethod
    async def start(cls, output: int, redactor: Redactor, sink: Sink, *, max_bytes: int = MAX_OUTPUT_BYTES) -> Self:
        """Start reading from a pipe's end. The pipe is closed once it has been read completely."""
        capture = cls(redactor, sink, max_bytes)
        capture._reader, capture._transport = await open_pipe_reader(output)
        capture._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        capture._task = asyncio.create_task(capture._run())
        return capture

    async def finish(self, *, within: float = LINGER_TIMEOUT_S) -> None:
        """Wait up to `within` seconds until everything is in the sink, then stop. Raises what the sink raised."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await asyncio.shield(self._task)
        self._transport.close()
        await self._task

    async def _run(self) -> None:
        failed: Exception | None = None
        run_in_executor = asyncio.get_running_loop().run_in_executor
        while batch := await self._batch():
            left = self.max_bytes - self.bytes_seen
            self.bytes_seen += len(batch)
            text = self._text(await run_in_executor(REDACTION_THREAD, self.redactor.feed, batch[:left])) if left >= 0 else ""
            if left >= 0 and self.bytes_seen > self.max_bytes:
                # What the redactor holds back now may be the first half of a secret, so drop it.
                text = f"{text}\n[output truncated: more than {self.max_bytes:,} bytes]\n"
            try:
                if text and failed is None:
                    await self.sink(text)
            except Exception as error:  # noqa: BLE001 - the job must not block because the sink failed; raised below
                failed = error
        self._transport.close()
        if failed is not None:
            raise failed
        rest = (
            "" if self.bytes_seen > self.max_bytes else self._text(await run_in_executor(REDACTION_THREAD, self.redactor.flush), final=True)
        )
        if rest:
            await self.sink(rest)

    async def _batch(self) -> bytes:
        """Return the bytes that arrived within FLUSH_INTERVAL_S of the first one; empty at the end."""
        parts = [await self._reader.read(MAX_BATCH_BYTES)]
        size = len(parts[0])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FLUSH_INTERVAL_S):
                while parts[-1] and size < MAX_BATCH_BYTES:
                    parts.append(await self._reader.read(MAX_BATCH_BYTES - size))
                    size += len(parts[-1])
        return b"".join(parts)

    def _text(self, redacted: bytes, *, final: bool = False) -> str:
        # PostgreSQL cannot store NUL in text.
        return self._decoder.decode(redacted, final).replace("\0", "\N{REPLACEMENT CHARACTER}")


async def open_pipe_reader(end: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    """Return a reader of a pipe's end, and its transport; closing the transport ends the reader's input."""
    reader = asyncio.StreamReader(limit=READER_LIMIT_BYTES)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, os.fdopen(end, "rb", 0))
    return reader, transport


@asynccontextmanager
async def readable(handle: int) -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set once a handle becomes readable, as a pidfd does when its process has ended."""
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(handle, event.set)
    try:
        yield event
    finally:
        loop.remove_reader(handle)
