"""What goes on beside a block, again and again: heartbeats, and other signs of life. Nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeVar

from temporalio import activity

HEARTBEAT_INTERVAL_S = 1.0


def send_heartbeats() -> AbstractAsyncContextManager[None]:
    """Tell Temporal each second for the length of a block that the worker of this activity lives; what blocks in it belongs in a thread."""
    return repeat_call(activity.heartbeat, HEARTBEAT_INTERVAL_S)


@asynccontextmanager
async def repeat_call(call: Callable[[], object], interval: float) -> AsyncIterator[None]:
    """Act at once, and every so many seconds, for the length of a block: it does so while this process's event loop turns."""

    async def go_on() -> None:
        while True:
            call()
            await asyncio.sleep(interval)

    task = asyncio.create_task(go_on())
    try:
        yield
    finally:
        task.cancel()


T = TypeVar("T")


async def run_to_completion(work: Awaitable[T]) -> T:
    """Do it to its end, then pass on a cancel that came meanwhile."""
    cancels: list[object] = []
    result = await run_despite_cancel(work, lambda: cancels.append(None))
    if cancels:
        raise asyncio.CancelledError
    return result


async def run_despite_cancel(work: Awaitable[T], on_cancel: Callable[[], object]) -> T:
    """Return what the work comes to, however often it is cancelled: each cancel is only told to `on_cancel`."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                on_cancel()
        except Exception:  # noqa: BLE001 - the work's own, raised by its result below
            break
    return task.result()
