"""Listens for a job's broker: on a Unix socket for the job's user only and, if the job has the host's network, on a loopback port.

uvicorn's protocol speaks HTTP on our own sockets, without uvicorn's server, which is made for whole processes (signals, a 100 ms tick).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from activities.broker.broker import Broker
from activities.broker.errors import BodyTooLarge
from activities.broker.llm.gateway import ModelGateway, drain_model_calls
from activities.broker.server.rest_api import build_app
from activities.broker.tools import ToolGateway, serve_tools
from activities.process import no_sandbox
from justenough.adapters.runtime.http_protocol import HEAD_TIMEOUT_S, HttpProtocolWithDeadlines
from justenough.domain.core.rate_limit import TokenBucket
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import BROKER_SOCKET

MAX_CONNECTIONS = 64
"""Connections of one job, idle ones included; further ones are closed, so that a job cannot use up the worker's open files."""
MAX_NEW_CONNECTIONS_PER_SECOND = 100
"""Rate limit of one job's new connections, after a burst of MAX_CONNECTIONS. Further ones wait in the kernel."""
ACCEPT_RETRY_S = 1.0
"""Seconds after which connections are accepted again if none could be."""
MAX_CONCURRENT_REQUESTS = 2 * MAX_CONNECTIONS
"""Requests of one job that are answered at once on one socket, those of disconnected callers included. Further requests get 503."""
MAX_HEAD_BYTES = 64 * 1024
"""Bytes that may arrive without completing a head or a piece of a body: uvicorn's parser buffers them all, and copies them each time."""
MAX_PIPELINED_REQUESTS = 16
"""Requests that one connection may send before an earlier one is answered."""
PEER_CREDENTIALS = struct.Struct("3i")
"""The format of SO_PEERCRED: pid, uid, gid."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a job finds its broker. Cannot print the token."""

    path: Path
    env: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)


@asynccontextmanager
async def serve_broker(
    broker: Broker, tools: ToolGateway, *, job: str, uid: int, loopback: bool, model_gateway: ModelGateway | None = None
) -> AsyncIterator[BrokerAddress]:
    """Listen for one job, whose processes run as `uid`. Once the block has ended, no call is under way."""
    folder = await asyncio.to_thread(no_sandbox.make_locked_folder, job)
    token = Secret(secrets.token_urlsafe(32))
    try:
        with ExitStack() as opened:
            unix = opened.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            unix.bind(str(folder / BROKER_SOCKET))
            (folder / BROKER_SOCKET).chmod(0o600)
            no_sandbox.hand_over(folder, uid)
            tcp = opened.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) if loopback else None
            if tcp:
                tcp.bind(("127.0.0.1", 0))
            sockets = [unix, *([tcp] if tcp else [])]
            async with serve_tools(tools, broker) as gate:
                app = partial(build_app, broker, token if loopback else None, tools=gate, discover=tools.catalog, models=model_gateway)
                env: dict[str, str | Secret] = {}
                if tcp:
                    url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
                    env |= {"JUSTENOUGH_BROKER_URL": url, "JUSTENOUGH_BROKER_TOKEN": token}
                    # Every client of OpenAI's API finds the model gateway by these names; the key is the broker's own token.
                    env |= {"OPENAI_BASE_URL": f"{url}/openai/v1", "OPENAI_API_KEY": token} if model_gateway else {}
                async with _accept_connections(broker, app, uid, sockets), drain_model_calls(model_gateway, broker):
                    yield BrokerAddress(folder / BROKER_SOCKET, env)
    finally:
        await asyncio.to_thread(no_sandbox.clear_folder, folder)


@asynccontextmanager
async def _accept_connections(broker: Broker, app: Callable[[], ASGIApp], uid: int, sockets: list[socket.socket]) -> AsyncIterator[None]:
    # One state per socket: anybody on the machine can connect over TCP, and must not use up the job's own connections.
    states = [ServerState() for _ in sockets]

    @cache
    def config() -> uvicorn.Config:
        """Create uvicorn's configuration at the first connection: most jobs never connect."""
        made = uvicorn.Config(
            app(),
            lifespan="off",
            ws="none",
            log_config=None,
            # uvicorn warns of each malformed request and each request to upgrade: a job could fill the worker's log with them.
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=HEAD_TIMEOUT_S,
            limit_concurrency=MAX_CONCURRENT_REQUESTS,
        )
        made.load()
        return made

    def protocol(state: ServerState) -> asyncio.Protocol:
        return SingleUserProtocol(config(), state, uid)

    for each in sockets:
        each.setblocking(False)  # noqa: FBT003 - its signature
        each.listen(MAX_CONNECTIONS)
    accepting = [asyncio.create_task(_accept_at_rate(each, partial(protocol, state))) for state, each in zip(states, sockets, strict=True)]
    try:
        yield
    finally:
        broker.close()
        for task in accepting:
            task.cancel()
        await asyncio.wait(accepting)
        await broker.drain()
        for connection in [each for state in states for each in state.connections]:
            connection.transport.abort()


async def _accept_at_rate(listening: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
    """Accept connections at a limited rate until cancelled. asyncio's own server has no limit, and each connection costs the other jobs
    time.
    """
    loop = asyncio.get_running_loop()
    allowance = TokenBucket.full(capacity=MAX_CONNECTIONS, per_second=MAX_NEW_CONNECTIONS_PER_SECOND, now=loop.time())
    while True:
        try:
            connection, _ = await loop.sock_accept(listening)
        except OSError as error:
            # The worker has no file handle left, for example.
            log.warning("a broker could not accept a connection", error=type(error).__name__)
            await asyncio.sleep(ACCEPT_RETRY_S)
            continue
        try:
            await loop.connect_accepted_socket(protocol, connection)
        except Exception:
            # One connection that fails must not end the others'.
            log.exception("a broker could not serve a connection")
            connection.close()
        allowance = allowance.charge(1, now=loop.time())
        await asyncio.sleep(allowance.seconds_until_next(now=loop.time()))


class SingleUserProtocol(HttpProtocolWithDeadlines):
    """HTTP for one user's processes: on a Unix socket the kernel names the peer's user, and any other user's connection is closed."""

    def __init__(self, config: uvicorn.Config, state: ServerState, uid: int) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._uid = uid
        self._bytes_since_use = 0
        """Bytes received since the last complete head or piece of a body."""

    def connection_made(self, transport: Any) -> None:
        """Accept the connection, or close it if it belongs to another user or the job has too many connections."""
        super().connection_made(transport)
        peer, connection = self._uid, transport.get_extra_info("socket")
        # Over TCP, and on systems without SO_PEERCRED, a token identifies the job.
        if connection.family == socket.AF_UNIX and hasattr(socket, "SO_PEERCRED"):
            _, peer, _ = PEER_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size))
        if peer != self._uid:
            log.warning("another user connected to a job's broker", uid=peer)
        if peer != self._uid or len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse the data; close the connection of a client that sends MAX_HEAD_BYTES without completing a request."""
        self._bytes_since_use += len(data)
        super().data_received(data)
        if self._bytes_since_use > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin a request. If too many wait already, the parser answers 400 and closes the connection."""
        self._bytes_since_use = 0
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            raise BodyTooLarge(f"more than {MAX_PIPELINED_REQUESTS} pipelined requests wait on this connection; read their responses first")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Receive a piece of a body; its reader limits the size."""
        self._bytes_since_use = 0
        super().on_body(body)
