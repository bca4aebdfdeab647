"""The workflow that a schedule starts for each run: a console then orders the job. Deterministic, no I/O.

It runs in consoles, on their own task queue, because workers cannot order jobs. The workflow waits while no console runs.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RetryPolicy, SearchAttributeKey
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    from justenough.domain.contracts.workflow_messages import ScheduleOccasion

TAKE_ACTIVITY = "take_occasion"
SCHEDULED_START = SearchAttributeKey.for_datetime("TemporalScheduledStartTime")
"""Temporal sets this on workflows that a schedule starts. Anyone with write access to Temporal can also set it, so the console checks the time."""
TAKE_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10)),
}
"""Retried, on any console, until the workflow's execution timeout."""


@workflow.defn(name="Fire")
class Fire:
    """Calls the activity in which a console orders the job of a scheduled run."""

    @workflow.run
    async def run(self, schedule: str) -> str:
        """Return the id of the launched job, or why none was launched."""
        at = workflow.info().typed_search_attributes.get(SCHEDULED_START)
        if at is None:
            raise ApplicationError("this workflow was not started by a schedule", non_retryable=True)
        taken: str = await workflow.execute_activity(
            TAKE_ACTIVITY, ScheduleOccasion(schedule=schedule, at=at), result_type=str, **TAKE_OPTIONS
        )
        return taken
