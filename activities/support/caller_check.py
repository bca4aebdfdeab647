"""Checks which workflow calls an activity: anybody who can write to Temporal may schedule one, with any argument.

This keeps false entries out of the ledger. Issuing is protected by the signatures that the session verifies itself.
"""

from __future__ import annotations

from datetime import datetime

from temporalio import activity

from justenough.domain.core.errors import GiveUp
from justenough.domain.ledger.events import Event, EventType, build_event, chain_for_job
from justenough.services.dependencies import Deps


class NotTheirs(GiveUp):
    """The caller is not a workflow of this job."""


def why_not_job_workflow(job: str, *, guard: bool = False) -> str | None:
    """Return why the calling workflow is not this job's (or its guard, if `guard`); None if it is."""
    info = activity.info()
    caller = (info.workflow_type, info.workflow_id)
    is_own = caller == ("Job", job) or (guard and caller == ("Guard", f"{job}-guard"))
    return None if is_own else "the caller is not the workflow of this job"


def require_job_workflow(deps: Deps, job: str, *, guard: bool = False) -> None:
    """Raise NotTheirs and record the attempt, unless a workflow of this job calls."""
    if why := why_not_job_workflow(job, guard=guard):
        deps.store.ledger.append([refused_event(job, why, at=deps.now())])
        raise NotTheirs(why)


def refused_event(job: str, why: str, *, at: datetime) -> Event:
    """Return the event of a refused attempt. A retry of the same activity yields the same event."""
    info = activity.info()
    run, workflow = str(info.workflow_run_id), str(info.workflow_id)
    return build_event(
        EventType.JOB_REFUSED, chain_for_job(job), at=at, about=f"{run}-{info.activity_id}", why=why, workflow=workflow, run=run
    )
