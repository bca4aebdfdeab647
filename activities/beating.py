"""What goes on beside a block, again and again: heartbeats, and other signs of life. Nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

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
