"""Takes the occasions of schedules from Temporal for as long as the console serves: orders and starts the job of each."""

from __future__ import annotations

import asyncio

import structlog
from anyio import to_thread

from console.services.console import Console
from console.services.schedule_orders import OccasionSkipped, order_occasion
from console.services.submit_job import start_job
from justenough.domain.contracts.workflow_messages import ScheduleOccasion
from justenough.domain.core.errors import GiveUp

RETRY_DELAY_S = 5.0
"""Seconds after a failure."""

log = structlog.get_logger()


async def run_occasions(console: Console) -> None:
    """Take occasions until cancelled, beginning again whenever that fails."""
    while True:
        try:
            await console.gateway.run_worker(lambda occasion: launch_occasion(console, occasion))
        except Exception as error:  # noqa: BLE001 - nobody else takes occasions: this goes on for as long as the console does
            log.warning("occasions of schedules cannot be taken now", error=type(error).__name__, why=str(error)[:200])
        await asyncio.sleep(RETRY_DELAY_S)


async def launch_occasion(console: Console, occasion: ScheduleOccasion) -> str:
    """Order and start what an occasion is for; return the job, or why there is none."""
    try:
        found = await to_thread.run_sync(order_occasion, console.deps, occasion)
    except GiveUp as error:
        log.warning("an occasion is refused", schedule=occasion.schedule, at=occasion.at.isoformat(), why=str(error))
        raise
    if isinstance(found, OccasionSkipped):
        log.info("an occasion is skipped", schedule=occasion.schedule, at=occasion.at.isoformat(), job=found.job)
        return f"skipped: {found.job} has not ended"
    await start_job(console, found)
    return found.job.id
