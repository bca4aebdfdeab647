"""Starts jobs that were recorded but never started, because the console died or Temporal was away between the two steps."""

from __future__ import annotations

from datetime import timedelta

import structlog
from anyio import to_thread

from console.concurrency.loops import repeat
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

    A claim shows that a workflow of the job has run; such a job is never started again.
    """
    started = []
    for job in await to_thread.run_sync(deps.store.jobs.unstarted, deps.now() - older_than):
        try:
            if await gateway.has_workflow(job):
                continue
            # Read after Temporal has answered: a run may since have claimed the job, ended it and been deleted.
            order, view = await to_thread.run_sync(deps.store.jobs.order, job), await to_thread.run_sync(deps.store.jobs.get, job)
            claim = await to_thread.run_sync(deps.store.claims.get, job)
            if order is None or view is None or claim or view.state is not JobState.PENDING or view.requests:
                continue
            await gateway.start_job(JobInput.of(job, order), environment=view.environment, requester=view.requester)
            log.warning("job is started again", job=job)
            started.append(job)
        except Exception as error:  # noqa: BLE001 - a failure of one job must not keep the others from being started
            log.warning("job that was never started cannot be started yet", job=job, error=type(error).__name__, why=str(error)[:200])
    return tuple(started)


async def run_reconciler(deps: Deps, gateway: TemporalGateway) -> None:
    """Start pending jobs every POLL_INTERVAL_S, until cancelled."""
    failure = "cannot read which jobs were never started"
    await repeat(lambda: start_pending_jobs(deps, gateway), every_s=POLL_INTERVAL_S, failure=failure)
