"""The workflow that a schedule starts when its time comes: it asks a console to order the job. Deterministic, no I/O.

It runs in the console, on a task queue of the consoles' own: the worker cannot order jobs, and a console that is away finds it when it is back.
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
"""What Temporal itself says of a workflow that a schedule started. Whoever can write to Temporal can say it too, so the console checks it."""
TAKE_OPTIONS: dict[str, Any] = {
    "start_to_close_timeout": timedelta(seconds=30),
    "retry_policy": RetryPolicy(initial_interval=timedelta(seconds=1), maximum_interval=timedelta(seconds=10)),
}
"""An occasion of a schedule: asked of any console until its workflow's own time is over."""


@workflow.defn(name="Fire")
class Fire:
    """Has a console order what an occasion is for."""

    @workflow.run
    async def run(self, schedule: str) -> str:
        """Return the job that was launched, or why none was."""
        at = workflow.info().typed_search_attributes.get(SCHEDULED_START)
        if at is None:
            raise ApplicationError("no schedule has started this", non_retryable=True)
        taken: str = await workflow.execute_activity(
            TAKE_ACTIVITY, ScheduleOccasion(schedule=schedule, at=at), result_type=str, **TAKE_OPTIONS
        )
        return taken
