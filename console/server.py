"""The console's process: serves the API and the pages with uvicorn until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import socket
import sys

import structlog
import uvicorn

from console.app import create_app
from console.services.console import build_console
from justenough.adapters.configuration.settings import Settings, load_settings
from justenough.adapters.runtime import gc_tuning, open_files
from justenough.adapters.runtime.http_protocol import HEAD_TIMEOUT_S, HttpProtocolWithDeadlines
from justenough.adapters.runtime.logging_setup import configure_logs
from justenough.adapters.temporal import with_temporal_profile
from justenough.domain.core.errors import JustEnoughError

log = structlog.get_logger()

DRAIN_TIMEOUT_S = 5
"""How long open responses, mostly streams, may continue after the console has received a signal to stop."""
MAX_CONNECTIONS = 4_000
"""Maximum concurrent connections: one per listener, and those of requests. Each takes a file descriptor."""
RESERVED_DESCRIPTORS = 256
"""File descriptors for the store, logs, Vault and Temporal."""


def main() -> None:
    """Serve until SIGTERM or SIGINT; exit 1 with one sentence if the console cannot start."""
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        asyncio.run(_serve(with_temporal_profile(settings)))
    except JustEnoughError as error:
        sys.exit(f"console cannot start: {error}")


async def _serve(settings: Settings) -> None:
    connections = open_files.raise_limit(MAX_CONNECTIONS + RESERVED_DESCRIPTORS) - RESERVED_DESCRIPTORS
    async with build_console(settings) as console:
        config = uvicorn.Config(
            create_app(console),
            host=settings.console_host,
            port=settings.console_port,
            log_config=None,
            # uvicorn warns of each malformed request and each request to upgrade: anybody could fill the log with them.
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=max(RESERVED_DESCRIPTORS, connections),
            http=HttpProtocolWithDeadlines,
            timeout_keep_alive=HEAD_TIMEOUT_S,
            timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
        )
        gc_tuning.freeze()
        await _Server(config).serve()


class _Server(uvicorn.Server):
    """Logs the address on which it listens: with port 0 it is unknown before."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then log the address."""
        await super().startup(sockets=sockets)
        for server in self.servers:
            for listening in server.sockets:
                host, port, *_ = listening.getsockname()
                log.info("console ready", host=host, port=port)
