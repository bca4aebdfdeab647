"""The guard: revokes what a job holds when the job's own workflow cannot. Deterministic, no I/O."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow

from workflows import options
from workflows.activity_calls import call_activity, retry_until_accepted, revoke_until_confirmed, run_shielded

with workflow.unsafe.imports_passed_through():
    from activities.job_activities import JobActivities
    from justenough.domain.contracts.workflow_messages import CloseInput, GuardInput, RevokeInput
    from justenough.domain.jobs.states import JobState
    from justenough.domain.ledger.events import Event


@workflow.defn(name="Guard")
class Guard:
    """Runs alongside a job whose access a person approved.

    When the job's run closes in any way, the server cancels the guard, which then revokes.
    """

    def __init__(self) -> None:
        self._job_closed = False

    @workflow.run
    async def run(self, order: GuardInput) -> bool:
        """Wait for the job's end or the deadline, revoke, and close a job that could not close itself.

        Return whether it had to close the job.
        """

        def note_job_closed() -> None:
            self._job_closed = True

        return await run_shielded(asyncio.create_task(self._wait_and_revoke(order)), on_cancel=note_job_closed)

    async def _wait_and_revoke(self, order: GuardInput) -> bool:
        try:
            await workflow.wait_condition(lambda: self._job_closed, timeout=timedelta(seconds=order.deadline))
        except TimeoutError:
            workflow.logger.warning("the guard's deadline passed")
        unrecorded = await self._revoke(order.job)
        if self._job_closed:
            closing = CloseInput(job=order.job, state=JobState.LOST, reason="its workflow closed without a result", unrecorded=unrecorded)
            return (await retry_until_accepted(lambda: call_activity(JobActivities.close, closing))).state is JobState.LOST
        while unrecorded:
            # The job is still open, so nobody else carries these events: revoke again until the ledger has taken the proof.
            await workflow.sleep(options.MAX_RETRY_INTERVAL)
            unrecorded = await self._revoke(order.job)
        return True

    async def _revoke(self, job: str) -> tuple[Event, ...]:
        why = "the job's workflow closed" if self._job_closed else "the guard's deadline passed"
        return (await revoke_until_confirmed(RevokeInput(job=job, by="guard", why=why))).unrecorded
