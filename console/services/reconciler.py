"""Starts again what was accepted but never started: the console may die, or Temporal be away, between recording an order and starting it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta

import structlog
from anyio import to_thread

from console.temporal.client import TemporalGateway
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.jobs.states import JobState
from justenough.services.dependencies import Deps

POLL_INTERVAL_S = 15.0
"""Seconds between two looks."""
MIN_PENDING_AGE = timedelta(seconds=5)
"""A younger job is still being started by the call that took it."""

log = structlog.get_logger()


async def start_pending_jobs(deps: Deps, gateway: TemporalGateway, *, older_than: timedelta = MIN_PENDING_AGE) -> tuple[str, ...]:
    """Start each pending job that Temporal does not know and that nobody ever claimed; return them.

    A claim says that a run had the job in hand: such a job is never started a second time.
    """
    found = []
    for job in await to_thread.run_sync(deps.store.jobs.unstarted, deps.now() - older_than):
        try:
            if await _start_if_unknown(deps, gateway, job):
                found.append(job)
        except Exception as error:  # noqa: BLE001 - one job's trouble, of whatever kind, must not keep the others from being started
            log.warning("job that was never started cannot be started yet", job=job, error=type(error).__name__, why=str(error)[:200])
    return tuple(found)


@contextlib.asynccontextmanager
async def run_reconciler(deps: Deps, gateway: TemporalGateway) -> AsyncIterator[None]:
    """Look now and then, for as long as the console serves."""
    async with run_in_background(_reconcile_forever(deps, gateway)):
        yield


@contextlib.asynccontextmanager
async def run_in_background(coroutine: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do something that never ends beside a block, and stop it there."""
    task = asyncio.create_task(coroutine)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _reconcile_forever(deps: Deps, gateway: TemporalGateway) -> None:
    while True:
        try:
            await start_pending_jobs(deps, gateway)
        except Exception as error:  # noqa: BLE001 - nobody else starts what was accepted: this goes on for as long as the console does
            log.warning("cannot look for jobs that were never started", error=type(error).__name__, why=str(error)[:200])
        await asyncio.sleep(POLL_INTERVAL_S)


async def _start_if_unknown(deps: Deps, gateway: TemporalGateway, job: str) -> bool:
    if await gateway.has_workflow(job):
        return False
    # Read after Temporal's answer, which is younger than the list: a run may have claimed the job since, ended it and been deleted.
    order, view = await to_thread.run_sync(deps.store.jobs.order, job), await to_thread.run_sync(deps.store.jobs.get, job)
    claim = await to_thread.run_sync(deps.store.claims.get, job)
    if order is None or view is None or claim or view.state is not JobState.PENDING or view.requests:
        return False
    await gateway.start_job(JobInput.of(job, order), environment=view.environment, requester=view.requester)
    log.warning("job is started again", job=job)
    return True
