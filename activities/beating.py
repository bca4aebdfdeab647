"""Heartbeats: Temporal hears each second that the worker of an activity lives. Nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from temporalio import activity

EVERY = 1.0


@asynccontextmanager
async def beating() -> AsyncIterator[None]:
    """Tell Temporal for the length of a block, whatever hangs in it; what blocks belongs in a thread."""

    async def beat() -> None:
        while True:
            activity.heartbeat()
            await asyncio.sleep(EVERY)

    task = asyncio.create_task(beat())
    try:
        yield
    finally:
        task.cancel()
