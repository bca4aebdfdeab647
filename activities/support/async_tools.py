"""What goes on beside a block, again and again: heartbeats, and other signs of life. Nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from temporalio import activity

EVERY = 1.0


def beating() -> AbstractAsyncContextManager[None]:
    """Tell Temporal each second for the length of a block that the worker of this activity lives; what blocks in it belongs in a thread."""
    return repeating(activity.heartbeat, EVERY)


@asynccontextmanager
async def repeating(act: Callable[[], object], every: float) -> AsyncIterator[None]:
    """Act at once, and every so many seconds, for the length of a block: it does so while this process's event loop turns."""

    async def go_on() -> None:
        while True:
            act()
            await asyncio.sleep(every)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()


T = TypeVar("T")


async def surely(work: Awaitable[T]) -> T:
    """Do it to its end, then pass on a cancel that came meanwhile."""
    cancels: list[object] = []
    result = await to_its_end(work, lambda: cancels.append(None))
    if cancels:
        raise asyncio.CancelledError
    return result


async def to_its_end(work: Awaitable[T], cancelled: Callable[[], object]) -> T:
    """Return what the work comes to, however often it is cancelled: each cancel is only told to `cancelled`."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                cancelled()
        except Exception:  # noqa: BLE001 - the work's own, raised by its result below
            break
    return task.result()
