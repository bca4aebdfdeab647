"""Runs a call repeatedly (heartbeats) or other work during a block, waits for an event with a timeout, runs work to completion despite
cancellation, and ignores errors that nobody awaits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from typing import Any, TypeVar

from temporalio import activity

HEARTBEAT_INTERVAL_S = 1.0
T = TypeVar("T")


def send_heartbeats() -> AbstractAsyncContextManager[None]:
    """Send Temporal a heartbeat each second until the block ends. Blocking calls in the block belong in threads."""
    return repeat_call(activity.heartbeat, HEARTBEAT_INTERVAL_S)


def repeat_call(call: Callable[[], object], interval: float) -> AbstractAsyncContextManager[None]:
    """Call now and every `interval` seconds until the block ends, on this event loop."""

    async def repeat() -> None:
        while True:
            call()
            await asyncio.sleep(interval)

    return run_until_block_ends(repeat())


@asynccontextmanager
async def run_until_block_ends(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run work in a separate task during a block, and cancel it when the block ends."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def run_beside(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run work during a block. Once the block ends, set the event that the work got, and wait for the work; raises what it raised."""
    ended = asyncio.Event()
    task = asyncio.create_task(work(ended))
    try:
        yield
    finally:
        ended.set()
        await task


async def wait_up_to(limit: timedelta, event: asyncio.Event) -> None:
    """Return once the event is set, or after this time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limit.total_seconds()):
            await event.wait()


async def run_to_completion(work: Awaitable[T]) -> T:
    """Await `work` to completion and return its result; if this task is cancelled during that time, raise CancelledError afterwards."""
    cancels: list[object] = []
    result = await run_despite_cancel(work, lambda: cancels.append(None))
    if cancels:
        raise asyncio.CancelledError
    return result


async def run_despite_cancel(work: Awaitable[T], on_cancel: Callable[[], object]) -> T:
    """Await `work` to completion even if this task is cancelled, and return its result; call `on_cancel` once per cancellation."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.cancelled():
                on_cancel()
        except Exception:  # noqa: BLE001 - the work's own error, raised by its result below
            break
    return task.result()


def ignore_error(ended: asyncio.Future[Any]) -> None:
    """Retrieve the error of work whose caller may have gone away: as a done callback, it keeps asyncio from logging a traceback."""
    if not ended.cancelled():
        ended.exception()
