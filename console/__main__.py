"""`python -m console`: serves the API with uvicorn until it is told to stop."""

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
"""Seconds that open answers (streams above all) get when the console stops."""
MAX_CONNECTIONS = 4_000
"""At once: listeners, each of whom holds one as long as it listens, and requests."""
RESERVED_DESCRIPTORS = 256
"""Descriptors for all else: store, logs, Vault, Temporal."""


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logs(settings.log_level)
    asyncio.run(_serve(settings))


def _connection_limit() -> int:
    """Return how many connections there may be; each takes a file descriptor, of which a process may have more than it first gets."""
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
