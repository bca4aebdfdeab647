"""`python -m console`: serves the console with uvicorn until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import resource

import uvicorn

from console.app import create_app
from console.startup import build_console
from justenough.adapters.configuration.settings import Settings, load_settings
from justenough.adapters.runtime import gc_tuning
from justenough.adapters.runtime.logging_setup import configure_logs

DRAIN_TIMEOUT_S = 5
"""How long open responses, mostly streams, may continue when the console stops."""
MAX_CONNECTIONS = 4_000
"""At the same time: listeners, which hold one connection each, and requests."""
RESERVED_DESCRIPTORS = 256
"""File descriptors for everything else: store, logs, Vault, Temporal."""


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logs(settings.log_level)
    asyncio.run(_serve(settings))


def _connection_limit() -> int:
    """Return how many connections to allow. Each takes a file descriptor, so raise the soft limit as far as needed and possible."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else MAX_CONNECTIONS + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < min(most, MAX_CONNECTIONS + RESERVED_DESCRIPTORS):
        soft = min(most, MAX_CONNECTIONS + RESERVED_DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return (
        MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(RESERVED_DESCRIPTORS, min(MAX_CONNECTIONS, soft - RESERVED_DESCRIPTORS))
    )


async def _serve(settings: Settings) -> None:
    async with build_console(settings) as console:
        config = uvicorn.Config(
            create_app(console),
            host=settings.console_host,
            port=settings.console_port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_connection_limit(),
            timeout_graceful_shutdown=DRAIN_TIMEOUT_S,
        )
        gc_tuning.freeze()
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    main()
