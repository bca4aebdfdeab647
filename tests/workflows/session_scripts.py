"""The courses that a session can take, as Temporal sees them: each issues, and ends or does not end in its own way."""

from __future__ import annotations

import asyncio

from temporalio import activity

from justenough.domain.contracts.workflow_messages import SessionResult
from justenough.domain.core.ids import credential_id
from justenough.domain.jobs.states import JobState
from tests.workflows.known_jobs import Known

BEAT = 0.02


async def works(known: Known) -> SessionResult:
    """Issue, run, revoke, prove."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    known.alive.clear()
    await known.note("proven by session")
    return SessionResult(outcome=JobState.SUCCEEDED, exit_code=0, clean=True)


async def stays(known: Known) -> SessionResult:
    """Issue and run until told to stop or cut off; then revoke and prove."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    try:
        while known.claim == "open":
            activity.heartbeat()
            await asyncio.sleep(BEAT)
        outcome, why = JobState.FAILED, "access_cut"
    except asyncio.CancelledError:
        outcome, why = JobState.CANCELLED, "cancelled"
    known.alive.clear()
    await known.note("proven by session")
    return SessionResult(outcome=outcome, exit_code=143, reason=why, stopped=True, clean=True)


async def lingers(known: Known) -> SessionResult:
    """Hear of a cancel and let the process take its time, until its access is cut."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    while known.claim == "open":
        activity.heartbeat()
        try:
            await asyncio.sleep(BEAT)
        except asyncio.CancelledError:
            await known.note("asked to end")
    await known.note("proven by session")
    return SessionResult(outcome=JobState.CANCELLED, exit_code=137, stopped=True, clean=True)


async def vanishes(known: Known) -> SessionResult:
    """Issue, and die with the worker: no heartbeat, no answer, nothing revoked."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    await asyncio.Event().wait()
    raise AssertionError


async def breaks(known: Known) -> SessionResult:
    """Issue, and fail in a way that nobody thought of."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    raise ZeroDivisionError


async def refuses(known: Known) -> SessionResult:
    """Find that the order does not hold; issue nothing."""
    await known.note("session refused")
    return SessionResult(outcome=JobState.FAILED, reason="refused: the order has expired", clean=True)


async def leaves_something(known: Known) -> SessionResult:
    """End by itself, without having seen everything dead."""
    known.alive.add(credential_id(known.job, 1))
    await known.note("issued")
    return SessionResult(outcome=JobState.SUCCEEDED, exit_code=0, clean=False)
