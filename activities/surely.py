"""Work that no cancel cuts short. Nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

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
