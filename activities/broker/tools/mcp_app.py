"""The ASGI application of one job's tool gateway, at /mcp.

The SDK's server is loaded and started with the first request: most jobs call no tool.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import structlog
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from activities.broker.broker import Broker
from activities.broker.tools.gateway import ToolGateway
from activities.broker.tools.request_limits import INVALID_PARAMS, check_request
from activities.issuing.results import ACCESS_CLOSED, AccessClosed

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

log = structlog.get_logger()


class McpApp:
    def __init__(self, tools: ToolGateway, broker: Broker) -> None:
        self._tools = tools
        self._broker = broker
        self._manager: StreamableHTTPSessionManager | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready, self._over = asyncio.Event(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises AccessClosed once the job's access is closed."""
        if self._broker.closed.is_set():
            raise AccessClosed(ACCESS_CLOSED)
        if self._task is None:
            # In a separate task: errors of the SDK's tasks must not reach the session, which must still end the job and revoke its access.
            self._task = asyncio.create_task(self._run())
            self._task.add_done_callback(lambda _: self._ready.set())
        await self._ready.wait()
        if self._manager is None:
            raise RuntimeError("the tool gateway's server did not start")
        replay, why = await check_request(receive)
        if why:
            refusal = {"jsonrpc": "2.0", "id": None, "error": {"code": INVALID_PARAMS, "message": why}}
            await JSONResponse(refusal, status_code=400)(scope, receive, send)
            return
        try:
            await self._manager.handle_request(scope, replay, send)
        except RuntimeError as error:
            if not self._broker.closed.is_set():
                raise
            # The SDK's server ended while this request waited for the server to start, or was sending its body.
            raise AccessClosed(ACCESS_CLOSED) from error

    async def _run(self) -> None:

        def load() -> StreamableHTTPSessionManager:
            from activities.broker.tools.mcp_server import build_manager  # noqa: PLC0415 - loads the MCP SDK, which most workers do without

            return build_manager(self._tools)

        # In a thread: loading the SDK takes most of a second, and this loop serves every job of the worker.
        self._manager = await asyncio.to_thread(load)
        async with self._manager.run():
            self._ready.set()
            await self._over.wait()

    async def end(self) -> None:
        """End the server, if it was started."""
        self._over.set()
        if self._task is None:
            return
        (failure,) = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(failure, Exception):
            log.error("the tool gateway's server failed", error=type(failure).__name__)


@contextlib.asynccontextmanager
async def serve_tools(tools: ToolGateway, broker: Broker) -> AsyncIterator[McpApp]:
    gate = McpApp(tools, broker)
    try:
        yield gate
    finally:
        await gate.end()
