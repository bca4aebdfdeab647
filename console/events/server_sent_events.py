"""Server-sent events: ledger entries as blocks of bytes, and the response that streams blocks while a client reads them.

The response requests a block only after the client has read the last one, so that a slow client costs only one block and the transport's
buffer. The response disconnects a client that reads nothing for STALL_TIMEOUT_S; the client reconnects with the last id that it saw.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing

import anyio
import structlog
from anyio import CancelScope
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from justenough.domain.integrations.cloudevents import to_cloud_event
from justenough.domain.readmodel.views import EntryView

STALL_TIMEOUT_S = 30.0
"""How long a block may wait for the client to read it."""
MAX_CHUNK_BYTES = 64 * 1024

log = structlog.get_logger()


class SseEncoder:
    """Encodes ledger entries as blocks, each a CloudEvent, once for all listeners. One per console."""

    MAX_CACHED = 1_000

    def __init__(self, installation: str) -> None:
        self._installation = installation
        self._cache: dict[tuple[int, str], bytes] = {}

    def encode(self, entries: Sequence[EntryView]) -> bytes:
        blocks = []
        for entry in entries:
            # After a restore of the store, a position has another entry.
            key = entry.position, entry.hash
            block = self._cache.get(key)
            if block is None:
                # Compact JSON contains no line breaks, because line breaks in strings are escaped.
                data = json.dumps(to_cloud_event(entry, self._installation), ensure_ascii=False, separators=(",", ":"))
                block = self._cache[key] = f"id: {entry.position}\nevent: {entry.type}\ndata: {data}\n\n".encode()
                if len(self._cache) > self.MAX_CACHED:
                    del self._cache[next(iter(self._cache))]
            blocks.append(block)
        return b"".join(blocks)


class EventStream(Response):
    """A stream of blocks. The `admission` context is open while they are sent; it gets a function that ends the stream."""

    media_type = "text/event-stream"

    def __init__(
        self,
        blocks: AsyncGenerator[bytes, None],
        *,
        admission: Callable[[Callable[[], None]], AbstractAsyncContextManager[None]],
        headers: dict[str, str] | None = None,
    ) -> None:
        # Proxies must neither cache, buffer nor compress the stream; nginx and others obey X-Accel-Buffering.
        unbuffered = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
        super().__init__(headers={**unbuffered, **(headers or {})}, media_type=self.media_type)
        # The transport marks the end; the length is unknown.
        del self.headers["content-length"]
        self._blocks, self._admission = blocks, admission
        self._sending_since: float | None = None
        """Since when a block has been waiting for the client to read it."""
        self._stalled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send blocks until there are no more, the client disconnects, or the admission ends the stream."""

        async def cancel_on_disconnect(scope: CancelScope) -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            scope.cancel()

        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group, self._admission(group.cancel_scope.cancel):
            group.start_soon(cancel_on_disconnect, group.cancel_scope)
            group.start_soon(self._cancel_when_stalled, group.cancel_scope)
            async with aclosing(self._blocks) as blocks:
                async for block in blocks:
                    for begin in range(0, len(block), MAX_CHUNK_BYTES):
                        self._sending_since = time.monotonic()
                        await send({"type": "http.response.body", "body": block[begin : begin + MAX_CHUNK_BYTES], "more_body": True})
                        self._sending_since = None
            group.cancel_scope.cancel()
        if self._stalled:
            # Nothing more can be sent, not even the end.
            log.info("a stalled stream was closed", path=scope["path"])
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _cancel_when_stalled(self, scope: CancelScope) -> None:
        # Poll, because a timer for each block would cost more.
        while self._sending_since is None or time.monotonic() - self._sending_since < STALL_TIMEOUT_S:  # noqa: ASYNC110 - nothing reports silence
            await anyio.sleep(STALL_TIMEOUT_S / 4)
        self._stalled = True
        scope.cancel()
