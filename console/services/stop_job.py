"""Stops a job through its workflow or, if that is gone, without it."""

from __future__ import annotations

import structlog
from anyio import to_thread

from console.auth.authorization import Caller
from console.services.console import Console
from console.services.inputs import MAX_STOP_REASON_CHARS, Stopping
from console.services.tell_job import tell_job
from console.services.visibility import job_for
from console.temporal.client import TemporalUnavailable, WorkflowGone
from justenough.domain.core.errors import Conflict, InvalidInput, Problem
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import JobSummary
from justenough.services.ledger_events import event_of_person

log = structlog.get_logger()


def can_stop(job: JobSummary, *, kill: bool) -> bool:
    """Whether there is something left to stop: a running job, or for a kill also an ended one whose revocation is not confirmed."""
    return not job.state.ended or (kill and not job.revocation.state.is_settled)


async def stop_job(console: Console, job: str, caller: Caller, *, kill: bool, reason: str = "") -> Stopping:
    """Ask a job to end, and record who asked and the reason if there is one. If the same person asks again, the first reason stays.

    Raises NotFound, Forbidden, Conflict if it has ended, InvalidInput, TemporalUnavailable if Temporal is needed to cancel it.
    """
    if len(reason) > MAX_STOP_REASON_CHARS:
        raise InvalidInput("form", (Problem("reason", f"is longer than {MAX_STOP_REASON_CHARS} characters; shorten it"),))
    view, person = await to_thread.run_sync(job_for, console.deps.store, caller, job), caller.person
    caller.require_right_to_stop(view.requester_id)
    if not can_stop(view, kill=kill):
        raise Conflict(f"the job has already ended: {view.state.value}")
    how = "kill" if kill else "cancel"
    given = {"reason": reason.strip()} if reason.strip() else {}
    now = console.deps.now()
    requested = event_of_person(person, EventType.STOP_REQUESTED, job, at=now, about=f"{how}/{person.id}", how=how, **given)

    def record() -> None:
        if kill:
            # The session and the sweep obey a closed claim even if the workflow does not obey the signal.
            console.deps.store.claims.close(job, console.deps.now())
        console.deps.store.ledger.append([requested])

    signal = console.gateway.kill(job) if kill else console.gateway.cancel(job)
    failure = await tell_job(signal, record, needs_workflow=not kill and view.state is not JobState.RUNNING)
    if failure is None:
        return Stopping(id=job, state=view.state)
    if isinstance(failure, WorkflowGone):
        note = f"its workflow is gone; {await _stop_without_workflow(console, job)}"
    elif kill:
        note = f"{failure}; {await _stop_without_workflow(console, job)}"
    else:
        note = f"{failure}; its session is notified through the store"
    return Stopping(id=job, state=view.state, note=note)


async def _stop_without_workflow(console: Console, job: str) -> str:
    """Close the job's claim and start a sweep; return a description of this for the caller."""
    # Without a workflow, the session and the sweep obey a closed claim.
    await to_thread.run_sync(console.deps.store.claims.close, job, console.deps.now())
    log.warning("job is stopped without its workflow", job=job)
    try:
        await console.gateway.start_sweep()
    except TemporalUnavailable as error:
        log.warning("sweep could not be started; the next scheduled sweep revokes the job's access", job=job, why=str(error))
        return "no more credentials are issued to it, its session stops within seconds, and sweeps revoke its access once Temporal answers"
    return "no more credentials are issued to it, and a sweep was started that revokes its credentials"
