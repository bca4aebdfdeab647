"""Starts jobs that were recorded but never started: the console may die, or Temporal be away, between recording an order and starting it."""

from __future__ import annotations

from datetime import timedelta

import structlog
from anyio import to_thread

from console.concurrency.background import repeat
from console.temporal.client import TemporalGateway
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.jobs.states import JobState
from justenough.services.dependencies import Deps

POLL_INTERVAL_S = 15.0
MIN_PENDING_AGE = timedelta(seconds=5)
"""A younger job is still being started by the call that recorded it."""

log = structlog.get_logger()


async def start_pending_jobs(deps: Deps, gateway: TemporalGateway, *, older_than: timedelta = MIN_PENDING_AGE) -> tuple[str, ...]:
    """Start each pending job that Temporal does not know and no session ever claimed; return their ids.

    A claim shows that a workflow of the job once ran: such a job is never started a second time.
    """
    started = []
    for job in await to_thread.run_sync(deps.store.jobs.list_unstarted, deps.now() - older_than):
        try:
            if await _start_if_unknown(deps, gateway, job):
                started.append(job)
        except Exception as error:  # noqa: BLE001 - no failure of one job may keep the others from being started
            log.warning("job that was never started cannot be started yet", job=job, error=type(error).__name__, why=str(error)[:200])
    return tuple(started)


async def run_reconciler(deps: Deps, gateway: TemporalGateway) -> None:
    """Start pending jobs every POLL_INTERVAL_S, until cancelled."""
    failure = "cannot look for jobs that were never started"
    await repeat(lambda: start_pending_jobs(deps, gateway), every_s=POLL_INTERVAL_S, failure=failure)


async def _start_if_unknown(deps: Deps, gateway: TemporalGateway, job: str) -> bool:
    if await gateway.has_workflow(job):
        return False
    # Read after Temporal's answer: since the list was read, a run may have claimed the job, ended it and been deleted.
    order, view = await to_thread.run_sync(deps.store.jobs.order, job), await to_thread.run_sync(deps.store.jobs.get, job)
    claim = await to_thread.run_sync(deps.store.claims.get, job)
    if order is None or view is None or claim or view.state is not JobState.PENDING or view.requests:
        return False
    await gateway.start_job(JobInput.of(job, order), environment=view.environment, requester=view.requester)
    log.warning("job is started again", job=job)
    return True
