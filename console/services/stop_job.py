"""Stopping a job, by its workflow or, where that is gone, without it: what API and pages do alike. Asks nobody's rights; its callers do."""

from __future__ import annotations

import structlog
from anyio import to_thread

from console.services.console import Console
from console.services.inputs import Stopping
from console.temporal.client import TemporalUnavailable, WorkflowGone
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import Conflict, NotFound
from justenough.domain.jobs.states import RevocationState
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import JobSummary

log = structlog.get_logger()


def can_stop(job: JobSummary, *, kill: bool) -> bool:
    """Whether there is something left to stop: a job that runs, or for a kill also one that is over and not shown to be clean."""
    return not job.state.ended or (kill and job.revocation.state not in {RevocationState.NONE, RevocationState.CONFIRMED})


async def stop_job(console: Console, job: str, caller: Person, *, kill: bool) -> Stopping:
    """Ask a job to end. Raises NotFound, Conflict where it is over, TemporalUnavailable where only Temporal can cancel it."""
    view = await to_thread.run_sync(console.deps.store.jobs.get, job)
    if view is None:
        raise NotFound(f"there is no job {job}")
    if not can_stop(view, kill=kill):
        raise Conflict(f"the job has ended already: {view.state.value}")
    note = None
    try:
        await (console.gateway.kill(job) if kill else console.gateway.cancel(job))
    except WorkflowGone:
        note = f"its workflow is gone; {await _stop_without_workflow(console, job)}"
    except TemporalUnavailable as error:
        if not kill:
            raise
        note = f"{error}; {await _stop_without_workflow(console, job)}"
    # After the wish is on its way: access must not stay open because the store is slow.
    if kill:
        # Its session and the sweep obey this even where a bug keeps its workflow from obeying the wish.
        await to_thread.run_sync(console.deps.store.claims.close, job, console.deps.now())
    how = "kill" if kill else "cancel"
    asked = build_event(
        EventType.STOP_REQUESTED, job, at=console.deps.now(), about=f"{how}/{caller.id}", how=how, person=caller.id, name=caller.name
    )
    await to_thread.run_sync(console.deps.store.ledger.append, [asked])
    return Stopping(id=job, state=view.state, note=note)


async def _stop_without_workflow(console: Console, job: str) -> str:
    """Do what can be done, and return what that is."""
    # A closed claim is what a session and the sweep obey when there is no workflow to tell them.
    await to_thread.run_sync(console.deps.store.claims.close, job, console.deps.now())
    log.warning("job is stopped without its workflow", job=job)
    try:
        await console.gateway.start_sweep()
    except TemporalUnavailable as error:
        log.warning("sweep could not be started; the scheduled one will find the job", job=job, why=str(error))
        return "its right to be issued more is ended, its session obeys that within seconds, and sweeps revoke it once Temporal answers"
    return "its right to be issued more is ended, and a sweep was started that revokes what it holds"
