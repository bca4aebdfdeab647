"""Takes the occasions of schedules from Temporal for as long as the console serves: orders and starts the job of each."""

from __future__ import annotations

import asyncio

import structlog
from anyio import to_thread

from console.services.console import Console
from console.services.schedule_orders import Skipped, taken
from console.services.submit_job import started
from justenough.domain.contracts.workflow_messages import Occasion
from justenough.domain.core.errors import GiveUp

PAUSE = 5.0
"""Seconds after a failure."""

log = structlog.get_logger()


async def fire(console: Console) -> None:
    """Take occasions until cancelled, beginning again whenever that fails."""
    while True:
        try:
            await console.gateway.work(lambda occasion: launch(console, occasion))
        except Exception as error:  # noqa: BLE001 - nobody else takes occasions: this goes on for as long as the console does
            log.warning("occasions of schedules cannot be taken now", error=type(error).__name__, why=str(error)[:200])
        await asyncio.sleep(PAUSE)


async def launch(console: Console, occasion: Occasion) -> str:
    """Order and start what an occasion is for; return the job, or why there is none."""
    try:
        found = await to_thread.run_sync(taken, console.deps, occasion)
    except GiveUp as error:
        log.warning("an occasion is refused", schedule=occasion.schedule, at=occasion.at.isoformat(), why=str(error))
        raise
    if isinstance(found, Skipped):
        log.info("an occasion is skipped", schedule=occasion.schedule, at=occasion.at.isoformat(), job=found.job)
        return f"skipped: {found.job} has not ended"
    await started(console, found)
    return found.job.id
