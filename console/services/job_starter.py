"""Starts jobs while the console serves: those of schedules, and those that could not be started when they were ordered."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import structlog
from anyio import to_thread

from console.concurrency.loops import repeat
from console.services.console import Console
from console.services.console_orders import OccasionSkipped, order_occasion
from console.services.submit_job import start_job
from console.temporal.client import TemporalGateway
from justenough.domain.contracts.workflow_messages import ScheduleOccasion
from justenough.domain.core.errors import GiveUp
from justenough.domain.jobs.states import JobState
from justenough.services.dependencies import Deps

POLL_INTERVAL_S = 15.0
MIN_PENDING_AGE = timedelta(seconds=5)
"""The call that recorded a younger job may still be starting it."""
RETRY_DELAY_S = 5.0

log = structlog.get_logger()


async def start_pending_jobs(deps: Deps, gateway: TemporalGateway, *, older_than: timedelta = MIN_PENDING_AGE) -> tuple[str, ...]:
    """Start each pending job that Temporal does not know and no session ever claimed; return their ids.

    A claim shows that a workflow of the job has run; such a job is never started again.
    """
    started = []
    for job in await to_thread.run_sync(deps.store.jobs.list_unstarted, deps.now() - older_than):
        try:
            if await gateway.has_workflow(job):
                continue
            # Read the claim after Temporal has answered: a run may since have claimed the job, ended it and been deleted.
            order, view = await to_thread.run_sync(deps.store.jobs.order, job), await to_thread.run_sync(deps.store.jobs.get, job)
            claim = await to_thread.run_sync(deps.store.claims.get, job)
            if order is None or view is None or claim or view.state is not JobState.PENDING or view.requests:
                continue
            await gateway.start_job(order, environment=view.environment, requester=view.requester)
            log.warning("job started again", job=job)
            started.append(job)
        except Exception as error:  # noqa: BLE001 - a failure of one job must not keep the others from being started
            log.warning("pending job cannot be started yet", job=job, error=type(error).__name__, why=str(error)[:200])
    return tuple(started)


async def run_reconciler(deps: Deps, gateway: TemporalGateway) -> None:
    """Start pending jobs every POLL_INTERVAL_S, until cancelled."""
    await repeat(partial(start_pending_jobs, deps, gateway), every_s=POLL_INTERVAL_S, failure="pending jobs cannot be read")


async def run_occasions(console: Console) -> None:
    """Take scheduled runs until cancelled; after a failure, start again."""
    run_worker = partial(console.gateway.run_worker, partial(launch_occasion, console))
    await repeat(run_worker, every_s=RETRY_DELAY_S, failure="the schedule worker stopped")


async def launch_occasion(console: Console, occasion: ScheduleOccasion) -> str:
    """Order and start the job of a scheduled run; return its id, or why no job was ordered.

    The run may have waited, for a console or for the launcher's quota, until after people paused the schedule.
    """
    pause = await to_thread.run_sync(console.schedule_sync.recorded_pause, occasion.schedule)
    # The record does not show that somebody unpaused it in Temporal.
    if pause and (status := await console.gateway.schedule_status(occasion.schedule)) and status.paused:
        log.info("schedule run not launched: paused", schedule=occasion.schedule, at=occasion.at.isoformat())
        return f"paused by {pause}"
    try:
        order = await to_thread.run_sync(order_occasion, console.deps, console.quotas, occasion)
    except GiveUp as error:
        log.warning("schedule run refused", schedule=occasion.schedule, at=occasion.at.isoformat(), why=str(error))
        raise
    if isinstance(order, OccasionSkipped):
        log.info("schedule run skipped", schedule=occasion.schedule, at=occasion.at.isoformat(), job=order.job)
        return f"skipped: {order.job} has not ended"
    await start_job(console, order)
    return order.job.id
