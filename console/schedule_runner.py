"""Takes the occasions of schedules from Temporal while the console serves, and orders and starts the job of each."""

from __future__ import annotations

import structlog
from anyio import to_thread

from console.concurrency.loops import repeat
from console.services.console import Console
from console.services.console_orders import OccasionSkipped, order_occasion
from console.services.submit_job import start_job
from justenough.domain.contracts.workflow_messages import ScheduleOccasion
from justenough.domain.core.errors import GiveUp

RETRY_DELAY_S = 5.0

log = structlog.get_logger()


async def run_occasions(console: Console) -> None:
    """Take occasions until cancelled; after a failure, start again."""
    await repeat(
        lambda: console.gateway.run_worker(lambda occasion: launch_occasion(console, occasion)),
        every_s=RETRY_DELAY_S,
        failure="the worker for occasions of schedules stopped",
    )


async def launch_occasion(console: Console, occasion: ScheduleOccasion) -> str:
    """Order and start the job of an occasion; return its id, or why no job was ordered."""
    try:
        order = await to_thread.run_sync(order_occasion, console.deps, occasion)
    except GiveUp as error:
        log.warning("an occasion was refused", schedule=occasion.schedule, at=occasion.at.isoformat(), why=str(error))
        raise
    if isinstance(order, OccasionSkipped):
        log.info("an occasion was skipped", schedule=occasion.schedule, at=occasion.at.isoformat(), job=order.job)
        return f"skipped: {order.job} has not ended"
    await start_job(console, order)
    return order.job.id
