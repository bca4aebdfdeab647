"""An answer that goes on: server-sent events as bytes, for as long as somebody reads them. Knows nothing of what is sent.

Each block is sent as it comes; while the reader does not take it nothing more is asked for, so that a slow one holds one block and what the
transport buffers. Whoever takes nothing for STALLED seconds is let go of, and comes back with the last id that it saw.
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
"""Seconds that a block may wait for its reader."""
MAX_CHUNK_BYTES = 64 * 1024
"""Bytes that are sent at once, about."""

log = structlog.get_logger()


class EventStream(Response):
    """Server-sent events. `admitted` is held while they are sent, and may end them by what it is given."""

    media_type = "text/event-stream"

    def __init__(
        self,
        blocks: AsyncGenerator[bytes, None],
        *,
        admission: Callable[[Callable[[], None]], AbstractAsyncContextManager[None]],
        headers: dict[str, str] | None = None,
    ) -> None:
        # A proxy must neither keep nor hold back nor press what is sent; X-Accel-Buffering is what nginx and others look at.
        unheld = {"Cache-Control": "no-store, no-transform", "X-Accel-Buffering": "no"}
        super().__init__(headers={**unheld, **(headers or {})}, media_type=self.media_type)
        # Its end is told by the transport, not by its length.
        del self.headers["content-length"]
        self._blocks, self._admission = blocks, admission
        self._sending_since: float | None = None
        """Since when a block waits for its reader."""
        self._stalled = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send what comes until there is no more, the reader is gone, or the admission ends."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with anyio.create_task_group() as group, self._admission(group.cancel_scope.cancel):
            group.start_soon(_until_gone, receive, group.cancel_scope)
            group.start_soon(self._until_stalled, group.cancel_scope)
            await self._send_blocks(send)
            group.cancel_scope.cancel()
        if self._stalled:
            # Nothing more can be sent, not even the end.
            log.info("a stream is let go of: nobody takes what it sends", path=scope["path"])
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
        # Now and then rather than by a timer for each block: blocks are many.
        while self._sending_since is None or time.monotonic() - self._sending_since < STALL_TIMEOUT_S:  # noqa: ASYNC110 - silence tells nobody
            await anyio.sleep(STALL_TIMEOUT_S / 4)
        self._stalled = True
        scope.cancel()


async def _until_gone(receive: Receive, scope: CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
