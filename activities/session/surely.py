"""Work that no cancel cuts short. Nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def surely(work: Awaitable[T]) -> T:
    """Do it to its end, then pass on a cancel that came meanwhile."""
    task, cancelled = asyncio.ensure_future(work), False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
        except Exception:  # noqa: BLE001 - the work's own, raised by its result below
            break
    result = task.result()
    if cancelled:
        raise asyncio.CancelledError
    return result
