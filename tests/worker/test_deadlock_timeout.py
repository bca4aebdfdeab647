"""A workflow that works longer than the SDK expects, as on a busy or suspended machine."""

from __future__ import annotations

import time
import uuid

import pytest
from temporalio import workflow
from temporalio.api.enums.v1 import EventType
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.workflows.servers import run_real_server
from worker.temporal_worker import extend_deadlock_timeout


@workflow.defn
class Slow:
    """Works for longer than the SDK's own 2 s without a pause."""

    @workflow.run
    async def run(self) -> str:
        time.sleep(2.5)  # noqa: ASYNC251 - it stands for a machine that does nothing for a while
        return "done"


@pytest.mark.servers
async def test_a_workflow_on_a_machine_that_stands_still_is_not_taken_for_deadlocked() -> None:
    queue = uuid.uuid4().hex
    async with run_real_server() as bench:
        worker = Worker(bench.client, task_queue=queue, workflows=[Slow], workflow_runner=UnsandboxedWorkflowRunner())
        extend_deadlock_timeout(worker)
        async with worker:
            handle = await bench.client.start_workflow(Slow.run, id=queue, task_queue=queue)
            assert await handle.result() == "done"
        failed = [event async for event in handle.fetch_history_events() if event.event_type == EventType.EVENT_TYPE_WORKFLOW_TASK_FAILED]
        assert failed == []
