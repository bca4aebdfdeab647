"""Loops that run while the console serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

import structlog

log = structlog.get_logger()


async def repeat(step: Callable[[], Awaitable[object]], *, every_s: float, failure: str) -> None:
    """Run `step` again and again, `every_s` after it ended, until cancelled. Log `failure` whenever it raises, and go on."""
    while True:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - nothing else does this work: it goes on for as long as the console does
            log.warning(failure, error=type(error).__name__, why=str(error)[:200])
        await asyncio.sleep(every_s)


@contextlib.asynccontextmanager
async def run_in_background(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run a coroutine that never ends beside a block, and cancel it when the block ends."""
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
