"""Which errors of activities reach Temporal, and that the worker's slots work with the real SDK."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from temporalio import activity, workflow
from temporalio.common import RetryPolicy
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, UnsandboxedWorkflowRunner, Worker

from justenough.domain.core.errors import Conflict, RetryLater
from tests.workflows.servers import QUEUE, run_real_server
from worker.intake import Slots
from worker.temporal_worker import ErrorInterceptor, build_tuner

SLOTS = 4
ACTIVITIES = 40
TIMEOUT = timedelta(minutes=5)


@activity.defn
async def send_many_heartbeats(number: int) -> None:
    """Send heartbeats while other activities start; fail if the number is odd."""
    for _ in range(20):
        for _ in range(100):
            activity.heartbeat()
        await asyncio.sleep(0)
    if number % 2:
        raise ValueError(number)


@workflow.defn
class Crowd:
    """Runs many activities at once, and returns how many failed."""

    @workflow.run
    async def run(self) -> int:
        once = RetryPolicy(maximum_attempts=1)
        calls = (
            workflow.execute_activity(send_many_heartbeats, number, start_to_close_timeout=TIMEOUT, retry_policy=once)
            for number in range(ACTIVITIES)
        )
        return sum(isinstance(result, Exception) for result in await asyncio.gather(*calls, return_exceptions=True))


class Failing(ActivityInboundInterceptor):
    """Raises instead of running an activity."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        raise self._error


@pytest.mark.parametrize(
    "error, kind, message, is_final",
    [
        (RetryLater("the target is away"), "RetryLater", "the target is away", False),
        (Conflict("it has ended"), "Conflict", "it has ended", True),
        (ValueError("postgresql://user:hunter2@host"), "ValueError", "unexpected error; the worker's log has the details", False),
        (ApplicationError("as it is", type="Own", non_retryable=True), "Own", "as it is", True),
    ],
)
async def test_temporal_hears_of_an_unexpected_error_only_its_type_and_of_ours_whether_to_retry(
    error: Exception, kind: str, message: str, *, is_final: bool
) -> None:
    given = ExecuteActivityInput(fn=asyncio.sleep, args=(), executor=None, headers={})
    with pytest.raises(ApplicationError) as raised:
        await ErrorInterceptor().intercept_activity(Failing(error)).execute_activity(given)
    found = raised.value
    assert (found.type, found.message, found.non_retryable, found.details) == (kind, message, is_final, ())
    # Temporal would also store a cause with its message.
    assert (found.__cause__, found.__suppress_context__) == (None, found is not error)


async def test_activities_that_send_heartbeats_never_block_the_worker_and_their_slots_are_released() -> None:
    """Before version 1.31 of the SDK, an activity that starts and one that sends a heartbeat could block each other and the process."""
    tuner = build_tuner(activities=Slots(SLOTS, lambda: True), workflows=Slots(SLOTS, lambda: True))
    async with run_real_server() as bench:
        client, runner = bench.client, UnsandboxedWorkflowRunner()
        async with Worker(
            client, task_queue=QUEUE, workflows=[Crowd], activities=[send_many_heartbeats], workflow_runner=runner, tuner=tuner
        ):
            # Several times as many tasks as slots, half of which fail: with slots that stay reserved they would wait forever.
            for nth in range(2):
                assert await client.execute_workflow(Crowd.run, id=f"crowd-{nth}", task_queue=QUEUE) == ACTIVITIES // 2
