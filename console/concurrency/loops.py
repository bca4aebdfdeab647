"""Loops: poll until something has happened, or repeat a step while the console serves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import TypeVar

import anyio
import structlog

T = TypeVar("T")

log = structlog.get_logger()


async def poll_until(
    first: T,
    read: Callable[[], Awaitable[T]],
    *,
    until: Callable[[T], bool],
    every_s: float,
    timeout_s: float,
    max_every_s: float | None = None,
) -> T:
    """Return the first value that satisfies `until`, beginning with `first`; after `timeout_s`, return the last one read.

    With `max_every_s` the pause doubles after each read, up to that many seconds, so that many callers do not overload a busy system.
    """
    value, pause = first, every_s
    with anyio.move_on_after(timeout_s):
        while not until(value):
            await anyio.sleep(pause)
            pause = min(2 * pause, max_every_s or every_s)
            value = await read()
    return value


async def repeat(step: Callable[[], Awaitable[object]], *, every_s: float, failure: str) -> None:
    """Run `step` again `every_s` after it ended, until cancelled. If it raises, log `failure` and continue."""
    while True:
        try:
            await step()
        except Exception as error:  # noqa: BLE001 - no other task does this work, so it continues for as long as the console runs
            log.warning(failure, error=type(error).__name__, why=str(error)[:200])
        await asyncio.sleep(every_s)


@contextlib.asynccontextmanager
async def run_in_background(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Run an endless coroutine during a block, and cancel it when the block ends."""
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
