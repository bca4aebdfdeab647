"""Starts again what was accepted but never started: the console may die, or Temporal be away, between recording an order and starting it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from datetime import timedelta

import structlog
from anyio import to_thread

from console.temporal.client import Gateway
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.jobs.states import JobState
from justenough.services.dependencies import Deps

EVERY = 15.0
"""Seconds between two looks."""
SETTLED = timedelta(seconds=5)
"""A younger job is still being started by the call that took it."""

log = structlog.get_logger()


async def started_again(deps: Deps, gateway: Gateway, *, older_than: timedelta = SETTLED) -> tuple[str, ...]:
    """Start each pending job that Temporal does not know and that nobody ever claimed; return them.

    A claim says that a run had the job in hand: such a job is never started a second time.
    """
    found = []
    for job in await to_thread.run_sync(deps.store.unstarted_jobs, deps.now() - older_than):
        try:
            if await _started_again(deps, gateway, job):
                found.append(job)
        except Exception as error:  # noqa: BLE001 - one job's trouble, of whatever kind, must not keep the others from being started
            log.warning("job that was never started cannot be started yet", job=job, error=type(error).__name__, why=str(error)[:200])
    return tuple(found)


@contextlib.asynccontextmanager
async def reconciling(deps: Deps, gateway: Gateway) -> AsyncIterator[None]:
    """Look now and then, for as long as the console serves."""
    async with meanwhile(_forever(deps, gateway)):
        yield


@contextlib.asynccontextmanager
async def meanwhile(forever: Coroutine[None, None, None]) -> AsyncIterator[None]:
    """Do something that never ends beside a block, and stop it there."""
    task = asyncio.create_task(forever)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _forever(deps: Deps, gateway: Gateway) -> None:
    while True:
        try:
            await started_again(deps, gateway)
        except Exception as error:  # noqa: BLE001 - nobody else starts what was accepted: this goes on for as long as the console does
            log.warning("cannot look for jobs that were never started", error=type(error).__name__, why=str(error)[:200])
        await asyncio.sleep(EVERY)


async def _started_again(deps: Deps, gateway: Gateway, job: str) -> bool:
    if await gateway.exists(job):
        return False
    # Read after Temporal's answer, which is younger than the list: a run may have claimed the job since, ended it and been deleted.
    order, view = await to_thread.run_sync(deps.store.order, job), await to_thread.run_sync(deps.store.job, job)
    claim = await to_thread.run_sync(deps.store.claim_of, job)
    if order is None or view is None or claim or view.state is not JobState.PENDING or view.requests:
        return False
    await gateway.start(JobInput.of(job, *order), environment=view.environment, requester=view.requester)
    log.warning("job is started again", job=job)
    return True
