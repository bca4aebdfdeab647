"""`python -m console`: serves the API with uvicorn until it is told to stop."""

from __future__ import annotations

import asyncio

import uvicorn

from activities.logs import configure_logs
from activities.settings import Settings, load_settings
from console.api.app import create_app
from console.build import built

DRAIN = 5
"""Seconds that open answers (streams above all) get when the console stops."""
MAX_CONNECTIONS = 1000


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load_settings()
    configure_logs(settings.log_level)
    asyncio.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    async with built(settings) as console:
        config = uvicorn.Config(
            create_app(console),
            host=settings.console_host,
            port=settings.console_port,
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=DRAIN,
        )
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    main()
