"""A response that streams server-sent events, as bytes, while a client reads them. Knows nothing of their content.

Blocks are sent one at a time: while the client does not read, no other is requested, so that a slow client holds one block and what the transport
buffers. A client that reads nothing for STALL_TIMEOUT_S is disconnected, and reconnects with the last id that it saw.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, aclosing

import anyio
import structlog
from anyio import CancelScope
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

STALL_TIMEOUT_S = 30.0
"""How long a block may wait to be read."""
MAX_CHUNK_BYTES = 64 * 1024
"""Blocks are sent in pieces of this size."""

log = structlog.get_logger()


class EventStream(Response):
    """Server-sent events. The `admission` context is open while they are sent; it gets a function that ends the stream."""

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
        """Since when a block has been waiting to be read."""
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
            group.start_soon(self._until_stalled, group.cancel_scope)
            await self._send_blocks(send)
            group.cancel_scope.cancel()
        if self._stalled:
            # Nothing more can be sent, not even the end.
            log.info("a stalled stream is closed", path=scope["path"])
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_blocks(self, send: Send) -> None:
        async with aclosing(self._blocks) as blocks:
            async for block in blocks:
                for begin in range(0, len(block), MAX_CHUNK_BYTES):
                    self._sending_since = time.monotonic()
                    await send({"type": "http.response.body", "body": block[begin : begin + MAX_CHUNK_BYTES], "more_body": True})
                    self._sending_since = None

    async def _until_stalled(self, scope: CancelScope) -> None:
        # Polled, because a timer for each of many blocks would cost more.
        while self._sending_since is None or time.monotonic() - self._sending_since < STALL_TIMEOUT_S:  # noqa: ASYNC110 - nothing reports silence
            await anyio.sleep(STALL_TIMEOUT_S / 4)
        self._stalled = True
        scope.cancel()
