"""The job's workflow, changed as a careless edit would: its old histories must not replay on any of these. Used by test_replay.py alone."""

from __future__ import annotations

from datetime import timedelta

from temporalio import workflow

from workflows.job import Job, JobOutcome

with workflow.unsafe.imports_passed_through():
    from activities.job_activities import JobActivities
    from justenough.domain.contracts.workflow_messages import CloseInput, JobInput, JobResult


@workflow.defn(name="Job")
class WaitsFirst(Job):
    """Waits before it decides."""

    @workflow.run
    async def run(self, order: JobInput) -> JobResult:
        await workflow.sleep(1)
        return await super().run(order)


@workflow.defn(name="Job")
class ClosesPatiently(Job):
    """Closes by an ordinary activity."""

    @workflow.run
    async def run(self, order: JobInput) -> JobResult:
        return await super().run(order)

    async def _close(self, outcome: JobOutcome) -> JobResult:
        closing = CloseInput(job=self._order.job, state=outcome.state)
        return await workflow.execute_activity_method(JobActivities.close, closing, schedule_to_close_timeout=timedelta(seconds=1))


@workflow.defn(name="Job")
class GoesUnguarded(Job):
    """Starts no guard."""

    @workflow.run
    async def run(self, order: JobInput) -> JobResult:
        return await super().run(order)

    async def _start_guard(self, seconds: int) -> None:
        return
