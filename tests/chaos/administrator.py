"""A Temporal administrator without bad intent: terminates, deletes and resets workflows, and fills histories. Asserts nothing."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from temporalio.api.batch.v1 import BatchOperationTermination
from temporalio.api.common.v1 import Payloads, WorkflowExecution
from temporalio.api.enums.v1 import TaskQueueType
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    DeleteWorkflowExecutionRequest,
    DescribeTaskQueueRequest,
    SignalWorkflowExecutionRequest,
    StartBatchOperationRequest,
)
from temporalio.client import WorkflowExecutionStatus

from tests.attacks.intruder import Intruder, encrypted_junk, raw_payload
from tests.support.wait import until
from worker.stack.stack_file import Stack

EARLY, LATE = 0, -1
MAX_PAYLOAD_BYTES = 1_900_000
"""Bytes. Temporal rejects payloads over 2 MB."""
MAX_HISTORY_BYTES = 50 * 1024 * 1024
"""Bytes of history. Temporal terminates a workflow with a longer history."""


@dataclass(frozen=True)
class Administrator:
    """Acts on workflows by their ids."""

    _temporal: Intruder

    @classmethod
    @contextmanager
    def connect(cls, stack: Stack) -> Iterator[Administrator]:
        """Yield an administrator for a block."""
        with Intruder.break_in(stack) as entered:
            yield cls(entered)

    def terminate(self, *workflows: str) -> None:
        """Terminate workflows, in this order."""
        for workflow in workflows:
            self._temporal.terminate_job(workflow)

    def terminate_together(self, *workflows: str) -> None:
        """Terminate workflows with one of Temporal's batch operations; return once it has started."""
        request = StartBatchOperationRequest(
            namespace="default",
            job_id=uuid.uuid4().hex,
            reason="a test",
            executions=[WorkflowExecution(workflow_id=workflow) for workflow in workflows],
            termination_operation=BatchOperationTermination(identity="administrator"),
        )
        self._temporal.run_async(self._temporal.client.workflow_service.start_batch_operation(request, retry=True))

    def delete(self, workflow: str) -> None:
        """Delete a workflow, running or not, with its history."""
        request = DeleteWorkflowExecutionRequest(namespace="default", workflow_execution=WorkflowExecution(workflow_id=workflow))
        self._temporal.run_async(self._temporal.client.workflow_service.delete_workflow_execution(request, retry=True))

    def reset(self, job: str, *, to: int) -> None:
        """Reset a workflow to its first or its last task."""
        self._temporal.reset_job(job, to=to, wait=False)

    def fill(self, job: str) -> None:
        """Send unknown signals until the history is too long and Temporal terminates the workflow."""
        request = SignalWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=job),
            signal_name="noise",
            input=Payloads(payloads=[raw_payload(b'"' + b"x" * MAX_PAYLOAD_BYTES + b'"')]),
        )
        signal = self._temporal.client.workflow_service.signal_workflow_execution

        async def run() -> None:
            await asyncio.gather(
                *(signal(request, retry=True) for _ in range(MAX_HISTORY_BYTES // MAX_PAYLOAD_BYTES + 1)), return_exceptions=True
            )

        while self.status(job) is WorkflowExecutionStatus.RUNNING:
            self._temporal.run_async(run())

    def confuse(self, job: str, argument: str) -> None:
        """Send a signal to revoke a credential that does not exist."""
        self._temporal.send_signal(job, "revoke_credential", raw_payload(argument.encode()))

    def send_unreadable(self, job: str) -> None:
        """Send a signal whose key only Vault could tell to be false."""
        self._temporal.send_signal(job, "decide", encrypted_junk())

    def until_task_repeated(self, job: str) -> None:
        """Wait until a task of a workflow has failed and is tried again."""
        handle = self._temporal.client.get_workflow_handle(job)

        def is_repeated() -> bool:
            return self._temporal.run_async(handle.describe()).raw_description.pending_workflow_task.attempt > 1

        until(is_repeated, f"a task of {job} is tried again")

    def kill(self, job: str) -> None:
        """Send a job's workflow the kill signal without the console, which cannot write its store."""
        self._temporal.send_signal(job, "kill")

    def events_of(self, workflow: str) -> Sequence[HistoryEvent]:
        """Return a workflow's history."""
        return self._temporal.run_async(self._temporal.client.get_workflow_handle(workflow).fetch_history()).events

    def has_timed_out(self, job: str) -> bool:
        """Whether one of a job's activities timed out for lack of heartbeats."""
        return any(event.HasField("activity_task_timed_out_event_attributes") for event in self.events_of(job))

    def has_asked_to_revoke(self, job: str) -> bool:
        """Whether a job's workflow has scheduled a revocation of everything."""
        scheduled = (event.activity_task_scheduled_event_attributes for event in self.events_of(job))
        return any(attributes.activity_type.name == "revoke_job" for attributes in scheduled)

    def longest_task_wait(self, job: str) -> float:
        """Return the longest time, in seconds, that a workflow task waited for a worker that did not take it."""
        events = self.events_of(job)
        scheduled = {event.event_id: event.event_time.ToDatetime() for event in events}
        over = [(event, event.workflow_task_timed_out_event_attributes) for event in events]
        kept = [event.event_time.ToDatetime() - scheduled[timed.scheduled_event_id] for event, timed in over if timed.scheduled_event_id]
        return max((each.total_seconds() for each in kept), default=0.0)

    def count_waiting_activities(self, queue: str) -> int:
        """Return how many activities wait in a task queue for a worker."""
        request = DescribeTaskQueueRequest(
            namespace="default",
            task_queue=TaskQueue(name=queue),
            task_queue_type=TaskQueueType.TASK_QUEUE_TYPE_ACTIVITY,
            report_stats=True,
        )
        described = self._temporal.run_async(self._temporal.client.workflow_service.describe_task_queue(request, retry=True))
        return int(described.stats.approximate_backlog_count)

    def until_task_failed(self, job: str) -> None:
        """Wait until a task of a workflow has failed."""

        def stumbled() -> bool:
            return any(event.HasField("workflow_task_failed_event_attributes") for event in self.events_of(job))

        until(stumbled, f"a task of {job} has failed")

    def status(self, workflow: str) -> WorkflowExecutionStatus | None:
        """Return the status of a workflow's newest run; None if Temporal has none."""
        if not self._temporal.has_workflow(workflow):
            return None
        return self._temporal.run_async(self._temporal.client.get_workflow_handle(workflow).describe()).status

    def result(self, workflow: str) -> Any:
        """Return a workflow's result once it has completed."""
        return self._temporal.run_async(self._temporal.client.get_workflow_handle(workflow).result())
