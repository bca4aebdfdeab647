"""Where a job's broker listens: a Unix socket that the job's user alone can use and, where the job has the host's network, a port on loopback.

uvicorn's protocol speaks HTTP on our own sockets, without its server: that one is for whole processes, with signals and a beat of a tenth of a second.
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
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from activities.broker.broker import Broker
from activities.broker.errors import BodyTooLarge
from activities.broker.llm.gateway import ModelGateway, drain_model_calls
from activities.broker.server.rest_api import build_app
from activities.broker.tools import ToolGateway, serve_tools
from activities.process import no_sandbox
from justenough.domain.core.secret import Secret

MAX_CONNECTIONS = 64
"""Connections of one job, silent ones too; who comes beyond that is hung up on, so that a job cannot use up the worker's open files."""
IDLE_TIMEOUT_S = 30
"""Seconds that a connection may be silent between two requests."""
MAX_CONCURRENT_REQUESTS = 2 * MAX_CONNECTIONS
"""Requests of one job that are being answered on one socket, of callers that have gone too: they cost what others cost. Beyond that: 503."""
MAX_HEAD_BYTES = 64 * 1024
"""Bytes that may come without being any request's body, or the end of its head: uvicorn's parser keeps them all, and copies them at each piece."""
MAX_PIPELINED_REQUESTS = 16
"""Requests that one connection may send before the one before them is answered."""
SOCKET_NAME = "broker.sock"
PEER_CREDENTIALS = struct.Struct("3i")
"""Of SO_PEERCRED: pid, uid, gid."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class BrokerAddress:
    """Where a job finds its broker. The token never prints."""

    path: Path
    env: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)


@asynccontextmanager
async def serve_broker(
    broker: Broker, tools: ToolGateway, *, job: str, uid: int, loopback: bool, model_gateway: ModelGateway | None = None
) -> AsyncIterator[BrokerAddress]:
    """Listen for one job, whose processes run as `uid`, until the block ends; then nothing is on its way any more."""
    folder = await asyncio.to_thread(no_sandbox.make_locked_folder, job)
    token = Secret(secrets.token_urlsafe(32))
    try:
        with ExitStack() as opened:
            unix = opened.enter_context(_unix_socket(folder, uid))
            tcp = opened.enter_context(_loopback_socket()) if loopback else None
            sockets = [unix, *([tcp] if tcp else [])]
            async with serve_tools(tools, broker) as gate:
                app = partial(build_app, broker, token if loopback else None, tools=gate, discover=tools.catalog, models=model_gateway)
                async with _accept_connections(broker, app, uid, sockets), drain_model_calls(model_gateway, broker):
                    yield BrokerAddress(folder / SOCKET_NAME, _broker_variables(tcp, token, model=model_gateway is not None) if tcp else {})
    finally:
        await asyncio.to_thread(no_sandbox.clear_folder, folder)


def _broker_variables(tcp: socket.socket, token: Secret, *, model: bool) -> Mapping[str, str | Secret]:
    url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
    # By these names every client of OpenAI's API finds it; the key is the broker's own token.
    openai: dict[str, str | Secret] = {"OPENAI_BASE_URL": f"{url}/openai/v1", "OPENAI_API_KEY": token} if model else {}
    return {"JUSTENOUGH_BROKER_URL": url, "JUSTENOUGH_BROKER_TOKEN": token, **openai}


@asynccontextmanager
async def _accept_connections(broker: Broker, app: Callable[[], ASGIApp], uid: int, sockets: list[socket.socket]) -> AsyncIterator[None]:
    # One for each socket: anybody on the machine can come by TCP, and must not take the job's own places.
    states, loop = [ServerState() for _ in sockets], asyncio.get_running_loop()

    @cache
    def config() -> uvicorn.Config:
        """Made by the first connection: most jobs ask for nothing while they run."""
        return _uvicorn_config(app())

    def protocol(state: ServerState) -> asyncio.Protocol:
        return SingleUserProtocol(config(), state, uid)

    servers = [await loop.create_server(partial(protocol, state), sock=each) for state, each in zip(states, sockets, strict=True)]
    try:
        yield
    finally:
        broker.close()
        for server in servers:
            server.close()
        await broker.drain()
        for connection in [each for state in states for each in state.connections]:
            connection.transport.abort()


def _uvicorn_config(app: ASGIApp) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE_TIMEOUT_S,
        limit_concurrency=MAX_CONCURRENT_REQUESTS,
    )
    config.load()
    return config


class SingleUserProtocol(HttpToolsProtocol):
    """HTTP for one user's processes: on a Unix socket the kernel says whose they are, and anybody else is hung up on."""

    def __init__(self, config: uvicorn.Config, state: ServerState, uid: int) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._uid = uid
        self._bytes_since_use = 0
        """Bytes since the last that were of use."""

    def connection_made(self, transport: Any) -> None:
        """Serve, or hang up."""
        found = _peer_uid(transport.get_extra_info("socket"))
        super().connection_made(transport)
        if found not in {None, self._uid}:
            log.warning("another user came to a job's broker", uid=found)
            transport.abort()
        elif len(self.connections) > MAX_CONNECTIONS:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read on, and hang up on who sends on and on without coming to a request."""
        self._bytes_since_use += len(data)
        super().data_received(data)
        if self._bytes_since_use > MAX_HEAD_BYTES:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin a request, unless too many wait already: the parser then says 400, and closes."""
        self._bytes_since_use = 0
        if len(self.pipeline) >= MAX_PIPELINED_REQUESTS:
            message = f"more than {MAX_PIPELINED_REQUESTS} requests wait for the one before them"
            raise BodyTooLarge(message)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; whoever reads it bounds it."""
        self._bytes_since_use = 0
        super().on_body(body)


def _peer_uid(connection: socket.socket) -> int | None:
    """Return whose process is at the other end; None where the kernel does not say: by TCP a token must."""
    if connection.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = PEER_CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER_CREDENTIALS.size))
    return int(uid)


def _unix_socket(folder: Path, uid: int) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = folder / SOCKET_NAME
    found.bind(str(path))
    path.chmod(0o600)
    no_sandbox.hand_over(folder, uid)
    return found


def _loopback_socket() -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.bind(("127.0.0.1", 0))
    return found
