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

from activities.broker.broker import Door
from activities.broker.errors import TooLarge
from activities.broker.llm.gateway import Models, thinking
from activities.broker.server.rest_api import app_of
from activities.broker.tools import Tools, serving
from activities.process import no_sandbox
from justenough.domain.core.secret import Secret

AT_ONCE = 64
"""Connections of one job, silent ones too; who comes beyond that is hung up on, so that a job cannot use up the worker's open files."""
IDLE = 30
"""Seconds that a connection may be silent between two requests."""
UNDER_WAY = 2 * AT_ONCE
"""Requests of one job that are being answered on one socket, of callers that have gone too: they cost what others cost. Beyond that: 503."""
MOST_HEAD = 64 * 1024
"""Bytes that may come without being any request's body, or the end of its head: uvicorn's parser keeps them all, and copies them at each piece."""
QUEUED = 16
"""Requests that one connection may send before the one before them is answered."""
SOCKET = "broker.sock"
PEER = struct.Struct("3i")
"""Of SO_PEERCRED: pid, uid, gid."""
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job finds its broker. The token never prints."""

    path: Path
    env: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)


@asynccontextmanager
async def listening(door: Door, tools: Tools, *, job: str, uid: int, loopback: bool, models: Models | None = None) -> AsyncIterator[Place]:
    """Listen for one job, whose processes run as `uid`, until the block ends; then nothing is on its way any more."""
    folder = await asyncio.to_thread(no_sandbox.locked_folder, job)
    token = Secret(secrets.token_urlsafe(32))
    try:
        with ExitStack() as opened:
            unix = opened.enter_context(_unix(folder, uid))
            tcp = opened.enter_context(_tcp()) if loopback else None
            sockets = [unix, *([tcp] if tcp else [])]
            async with serving(tools, door) as gate:
                app = partial(app_of, door, token if loopback else None, tools=gate, discover=tools.catalog, models=models)
                async with _serving(door, app, uid, sockets), thinking(models, door):
                    yield Place(folder / SOCKET, _told(tcp, token, model=models is not None) if tcp else {})
    finally:
        await asyncio.to_thread(no_sandbox.clear_folder, folder)


def _told(tcp: socket.socket, token: Secret, *, model: bool) -> Mapping[str, str | Secret]:
    url = f"http://127.0.0.1:{tcp.getsockname()[1]}"
    # By these names every client of OpenAI's API finds it; the key is the broker's own token.
    openai: dict[str, str | Secret] = {"OPENAI_BASE_URL": f"{url}/openai/v1", "OPENAI_API_KEY": token} if model else {}
    return {"JUSTENOUGH_BROKER_URL": url, "JUSTENOUGH_BROKER_TOKEN": token, **openai}


@asynccontextmanager
async def _serving(door: Door, app: Callable[[], ASGIApp], uid: int, sockets: list[socket.socket]) -> AsyncIterator[None]:
    # One for each socket: anybody on the machine can come by TCP, and must not take the job's own places.
    states, loop = [ServerState() for _ in sockets], asyncio.get_running_loop()

    @cache
    def config() -> uvicorn.Config:
        """Made by the first connection: most jobs ask for nothing while they run."""
        return _config(app())

    def protocol(state: ServerState) -> asyncio.Protocol:
        return OfOneUser(config(), state, uid)

    servers = [await loop.create_server(partial(protocol, state), sock=each) for state, each in zip(states, sockets, strict=True)]
    try:
        yield
    finally:
        door.close()
        for server in servers:
            server.close()
        await door.settled()
        for connection in [each for state in states for each in state.connections]:
            connection.transport.abort()


def _config(app: ASGIApp) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE,
        limit_concurrency=UNDER_WAY,
    )
    config.load()
    return config


class OfOneUser(HttpToolsProtocol):
    """HTTP for one user's processes: on a Unix socket the kernel says whose they are, and anybody else is hung up on."""

    def __init__(self, config: uvicorn.Config, state: ServerState, uid: int) -> None:
        super().__init__(config=config, server_state=state, app_state={})
        self._uid = uid
        self._pointless = 0
        """Bytes since the last that were of use."""

    def connection_made(self, transport: Any) -> None:
        """Serve, or hang up."""
        found = _user_of(transport.get_extra_info("socket"))
        super().connection_made(transport)
        if found not in {None, self._uid}:
            log.warning("another user came to a job's broker", uid=found)
            transport.abort()
        elif len(self.connections) > AT_ONCE:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Read on, and hang up on who sends on and on without coming to a request."""
        self._pointless += len(data)
        super().data_received(data)
        if self._pointless > MOST_HEAD:
            self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin a request, unless too many wait already: the parser then says 400, and closes."""
        self._pointless = 0
        if len(self.pipeline) >= QUEUED:
            message = f"more than {QUEUED} requests wait for the one before them"
            raise TooLarge(message)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body; whoever reads it bounds it."""
        self._pointless = 0
        super().on_body(body)


def _user_of(connected: socket.socket) -> int | None:
    """Return whose process is at the other end; None where the kernel does not say: by TCP a token must."""
    if connected.family != socket.AF_UNIX or not hasattr(socket, "SO_PEERCRED"):
        return None
    _, uid, _ = PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    return int(uid)


def _unix(folder: Path, uid: int) -> socket.socket:
    found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path = folder / SOCKET
    found.bind(str(path))
    path.chmod(0o600)
    no_sandbox.hand_over(folder, uid)
    return found


def _tcp() -> socket.socket:
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.bind(("127.0.0.1", 0))
    return found
