"""The guard: revokes what a job holds when the job's own workflow cannot. Deterministic, no I/O."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from temporalio import workflow

from workflows import options
from workflows.activity_calls import insisted, lived, revoked, step

with workflow.unsafe.imports_passed_through():
    from activities.job_activities import Deciding
    from justenough.domain.contracts.workflow_messages import CloseInput, GuardInput, RevokeInput
    from justenough.domain.jobs.states import JobState
    from justenough.domain.ledger.events import Event


@workflow.defn(name="Guard")
class Guard:
    """Stands beside a job that a person approved; the server cancels it when the job's run closes in any way, and then it revokes."""

    def __init__(self) -> None:
        self._job_closed = False

    @workflow.run
    async def run(self, order: GuardInput) -> bool:
        """Wait for the job's end or the deadline, revoke, and close a job that could not close itself. Returns whether it had to."""
        return await lived(asyncio.create_task(self._stand(order)), cancelled=self._see_closed)

    async def _stand(self, order: GuardInput) -> bool:
        try:
            await workflow.wait_condition(lambda: self._job_closed, timeout=timedelta(seconds=order.deadline))
        except TimeoutError:
            workflow.logger.warning("the guard's deadline passed")
        unrecorded = await self._revoked(order.job)
        if self._job_closed:
            return await self._closed(order.job, unrecorded)
        while unrecorded:
            # The job still stands, so nobody closes it and carries these on: revoke again until the ledger has taken the proof.
            await workflow.sleep(options.LONGEST_PAUSE)
            unrecorded = await self._revoked(order.job)
        return True

    async def _revoked(self, job: str) -> tuple[Event, ...]:
        why = "the job's workflow closed" if self._job_closed else "the guard's deadline passed"
        return (await revoked(RevokeInput(job=job, by="guard", why=why))).unrecorded

    async def _closed(self, job: str, unrecorded: tuple[Event, ...]) -> bool:
        closing = CloseInput(job=job, state=JobState.LOST, reason="its workflow closed without telling", unrecorded=unrecorded)
        return (await insisted(lambda: step(Deciding.close, closing))).state is JobState.LOST

    def _see_closed(self) -> None:
        self._job_closed = True
