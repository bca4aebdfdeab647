"""The guard: revokes what a job holds when the job's own workflow cannot. Deterministic, no I/O."""

from __future__ import annotations

import asyncio

from temporalio import workflow

from workflows import options
from workflows.steps import step

with workflow.unsafe.imports_passed_through():
    from activities.deciding import Deciding
    from activities.ending import Ending
    from justenough.access import JobState
    from justenough.messages import CloseInput, GuardInput, RevokeInput


@workflow.defn(name="Guard")
class Guard:
    """Stands beside a job that a person approved; the server cancels it when the job's run closes in any way, and then it revokes."""

    @workflow.run
    async def run(self, order: GuardInput) -> bool:
        """Wait for the job's end or the deadline, revoke, and close a job that could not close itself. Returns whether it had to."""
        job_closed = await _cancelled_within(order.deadline)
        why = "the job's workflow closed" if job_closed else "the guard's deadline passed"
        result = await workflow.execute_activity_method(
            Ending.revoke_job, RevokeInput(job=order.job, by="guard", why=why), **options.REVOKE
        )
        if not job_closed:
            return True
        closing = CloseInput(job=order.job, state=JobState.LOST, reason="its workflow closed without telling", unrecorded=result.unrecorded)
        return (await step(Deciding.close, closing)).state is JobState.LOST


async def _cancelled_within(seconds: int) -> bool:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        if workflow.cancellation_reason() is None:
            raise
        return True
    return False
