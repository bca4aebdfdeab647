"""Who asks for an activity: anybody who can write to Temporal may schedule one, from a workflow of their own, with any argument.

What is found here guards the ledger's truth; what guards an issue is the signatures that the session verifies itself.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from temporalio import activity
from temporalio.common import RawValue

from justenough.domain.core.errors import GiveUp
from justenough.domain.ledger.events import Event, EventType, build_event, chain_for_job
from justenough.services.dependencies import Deps


class NotTheirs(GiveUp):
    """Whoever asks is not a workflow of this job's."""


def why_not_job_workflow(job: str, *, guard: bool = False) -> str | None:
    """Return why the workflow that asks is not this job's own (or, where it may be, its guard); None where it is."""
    info = activity.info()
    asked = (info.workflow_type, info.workflow_id)
    own = asked == ("Job", job) or (guard and asked == ("Guard", f"{job}-guard"))
    return None if own else "whoever asks is not the workflow of this job"


def require_job_workflow(deps: Deps, job: str, *, guard: bool = False) -> None:
    """Raise NotTheirs, having recorded the attempt, unless a workflow of this job's asks."""
    why = why_not_job_workflow(job, guard=guard)
    if why:
        deps.store.ledger.append([refused_event(job, why, at=deps.now())])
        raise NotTheirs(why)


def refused_event(job: str, why: str, *, at: datetime) -> Event:
    """Return the event of an attempt that was refused; a retry of the same activity makes the same one."""
    info = activity.info()
    run, workflow = str(info.workflow_run_id), str(info.workflow_id)
    return build_event(
        EventType.JOB_REFUSED, chain_for_job(job), at=at, about=f"{run}-{info.activity_id}", why=why, workflow=workflow, run=run
    )


def decode_argument(argument: RawValue, kind: type[Any]) -> Any:
    """Return an activity's argument as what it should be; None where it is nothing of the kind."""
    try:
        return activity.payload_converter().from_payload(argument.payload, kind)
    except Exception:  # noqa: BLE001 - a stranger's bytes: whatever they break, they are not an argument
        return None
