"""An intruder with write access to Temporal, the store and Vault's groups, and with no key but their own. Asserts nothing."""

from __future__ import annotations

import asyncio
import base64
import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from temporalio import workflow
from temporalio.api.common.v1 import Payload, Payloads, WorkflowExecution, WorkflowType
from temporalio.api.enums.v1 import WorkflowIdConflictPolicy
from temporalio.api.history.v1 import HistoryEvent
from temporalio.api.taskqueue.v1 import TaskQueue
from temporalio.api.workflowservice.v1 import (
    ResetWorkflowExecutionRequest,
    SignalWorkflowExecutionRequest,
    StartWorkflowExecutionRequest,
)
from temporalio.client import Client, WorkflowFailureError
from temporalio.common import RetryPolicy, WorkflowIDConflictPolicy
from temporalio.exceptions import ActivityError
from temporalio.service import RPCError, RPCStatusCode
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from justenough.adapters.payload_codec import ENCODING, WRAPPED_KEY_FIELD
from tests.support import temporal_client
from tests.support.people import Human
from tests.support.shop import Shop, access, spec
from tests.support.wait import pause
from worker.stack.stack_file import Stack

QUEUE = "intruder"
OURS = "justenough-dev"
ONCE = RetryPolicy(maximum_attempts=1)
LONG = timedelta(seconds=40)
PATIENCE = 300.0

T = TypeVar("T")


@dataclass(frozen=True)
class Call:
    """One activity that the intruder's workflow schedules on the installation's task queue."""

    activity: str
    argument: Any


async def _schedule(calls: list[Any]) -> list[Any]:
    answers: list[Any] = []
    for activity, argument in calls:
        try:
            answers.append(
                await workflow.execute_activity(
                    activity, argument, task_queue=OURS, start_to_close_timeout=LONG, heartbeat_timeout=LONG, retry_policy=ONCE
                )
            )
        except ActivityError as error:
            answers.append({"failed": str(error.cause)})
    return answers


@workflow.defn(name="Job", sandboxed=False)
class FalseJob:
    """A workflow with the type Job that runs the given activities."""

    @workflow.run
    async def run(self, calls: list[Any]) -> list[Any]:
        return await _schedule(calls)


@workflow.defn(name="Stranger", sandboxed=False)
class Stranger:
    """A workflow with its own type that runs the given activities."""

    @workflow.run
    async def run(self, calls: list[Any]) -> list[Any]:
        return await _schedule(calls)


class NothingToResetTo(Exception):
    """The workflow has not finished a task yet."""


class Intruder:
    """The intruder. Its methods block, so that tests read top to bottom; an event loop runs in another thread."""

    def __init__(self, stack: Stack, loop: asyncio.AbstractEventLoop, client: Client) -> None:
        self._stack = stack
        self._loop = loop
        self.client = client

    @classmethod
    @contextmanager
    def break_in(cls, stack: Stack) -> Iterator[Intruder]:
        """Yield an intruder with its own worker for a block."""
        assert stack.temporal
        loop = asyncio.new_event_loop()
        turning = threading.Thread(target=loop.run_forever)
        turning.start()
        try:
            client = _await_result(temporal_client.connect(stack), loop)
            worker = Worker(client, task_queue=QUEUE, workflows=[FalseJob, Stranger], workflow_runner=UnsandboxedWorkflowRunner())
            working = asyncio.run_coroutine_threadsafe(worker.run(), loop)
            yield cls(stack, loop, client)
            _await_result(worker.shutdown(), loop)
            working.result(PATIENCE)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            turning.join()
            loop.close()

    def run_async(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine against Temporal and return its result."""
        return _await_result(work, self._loop)

    @contextmanager
    def steal_tasks(self, queue: str, activities: Sequence[Callable[..., Any]]) -> Iterator[None]:
        """Poll one of the installation's task queues for a block, with so many polls that hardly a task is left for its workers."""

        async def build() -> Worker:
            return Worker(self.client, task_queue=queue, activities=activities, max_concurrent_activity_task_polls=60)

        worker = self.run_async(build())
        with self.run_beside(worker.run()):
            yield

    @contextmanager
    def run_beside(self, work: Coroutine[Any, Any, None]) -> Iterator[None]:
        """Run a coroutine against Temporal for a block, then cancel it; raise what it raised."""
        running = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            yield
        finally:
            running.cancel()
            with suppress(CancelledError):
                running.result(PATIENCE)

    def send_signal(self, job: str, name: str, *payloads: Payload) -> None:
        """Send a signal with any payloads, valid or not."""
        request = SignalWorkflowExecutionRequest(
            namespace="default",
            workflow_execution=WorkflowExecution(workflow_id=job),
            signal_name=name,
            input=Payloads(payloads=list(payloads)),
        )
        self.run_async(self.client.workflow_service.signal_workflow_execution(request, retry=True))

    def run_workflow(self, kind: str, workflow_id: str, *calls: Call) -> list[Any]:
        """Run a workflow with the intruder's code under this id, replacing a running one; return the results of its activities.

        Like the installation's own workflow it tries again while other jobs of the account leave a session no place.
        """

        def run() -> list[Any]:
            return self.run_async(
                self.client.execute_workflow(
                    kind,
                    [[call.activity, call.argument] for call in calls],
                    id=workflow_id,
                    task_queue=QUEUE,
                    id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING,
                    result_type=list[Any],
                )
            )

        def has_no_place(results: list[Any]) -> bool:
            return any(isinstance(result, dict) and result.get("no_place") for result in results)

        began = time.monotonic()
        while has_no_place(results := run()):
            pause(since=began)
        return results

    def start_job(self, order: dict[str, Any]) -> None:
        """Start the installation's workflow Job with this argument, without the console, and wait for its end."""

        async def run() -> None:
            with_our_code = self.client.execute_workflow("Job", order, id=order["job"], task_queue=OURS)
            try:
                await with_our_code
            except WorkflowFailureError:
                return

        self.run_async(run())

    def copy_input(self, job: str) -> Payloads:
        """Return the input of a job's newest run as Temporal stores it: encrypted."""
        (started,) = (event for event in self._events(job) if event.HasField("workflow_execution_started_event_attributes"))
        return started.workflow_execution_started_event_attributes.input

    def copy_signals(self, job: str, name: str) -> list[Payload]:
        """Return the payloads of a job's signals of this name, in its newest run, as Temporal stores them: encrypted."""
        signals = (event.workflow_execution_signaled_event_attributes for event in self._events(job))
        return [payload for signal in signals if signal.signal_name == name for payload in signal.input.payloads]

    def replace_job(self, job: str, payloads: Payloads) -> None:
        """Start the installation's workflow Job anew with this input, instead of the running one."""
        request = StartWorkflowExecutionRequest(
            namespace="default",
            workflow_id=job,
            workflow_type=WorkflowType(name="Job"),
            task_queue=TaskQueue(name=OURS),
            input=payloads,
            request_id=secrets.token_hex(16),
            workflow_id_conflict_policy=WorkflowIdConflictPolicy.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING,
        )
        self.run_async(self.client.workflow_service.start_workflow_execution(request, retry=True))

    def _events(self, job: str) -> Sequence[HistoryEvent]:
        return self.run_async(self.client.get_workflow_handle(job).fetch_history()).events

    def reset_job(self, job: str, *, to: int, then: Any = None, wait: bool = True) -> None:
        """Reset the newest run of a job to its first (0), second or last (-1) task, send the new run a decision, wait for its end.

        Raises NothingToResetTo.
        """

        async def run() -> None:
            before = self.client.get_workflow_handle(job)
            run_id = (await before.describe()).run_id
            places = [event.event_id async for event in before.fetch_history_events() if _is_reset_point(event)]
            if not places:
                raise NothingToResetTo(job)
            execution = WorkflowExecution(workflow_id=job, run_id=run_id)
            request = ResetWorkflowExecutionRequest(
                namespace="default",
                workflow_execution=execution,
                reason="an attack",
                workflow_task_finish_event_id=places[to],
                request_id=run_id,
            )
            answered = await self.client.workflow_service.reset_workflow_execution(request, retry=True)
            after = self.client.get_workflow_handle(job, run_id=answered.run_id)
            if then is not None:
                with suppress(RPCError):
                    await after.signal("decide", then)
            if wait:
                await after.result()

        self.run_async(run())

    def histories(self, *, since: datetime | None = None) -> list[tuple[str, list[bytes]]]:
        """Return every workflow's events, each as protobuf and as Temporal's JSON export, and the decrypted payloads.

        `since`: only of workflows that were open then or started later.
        """
        codec = temporal_client.reading_codec(self._stack)
        query = f"ExecutionStatus = 'Running' OR CloseTime >= '{since.isoformat()}'" if since else None

        async def run() -> list[tuple[str, list[bytes]]]:
            found = []
            async for each in self.client.list_workflows(query):
                history = await self.client.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
                raw = [event.SerializeToString() for event in history.events]
                decrypted = await temporal_client.decrypted_payloads(history, codec)
                found.append((f"{each.workflow_type} {each.id}", [history.to_json().encode(), *raw, *decrypted]))
            return found

        return self.run_async(run())

    def has_workflow(self, job: str) -> bool:
        """Whether Temporal has a workflow with this id."""
        try:
            self.run_async(self.client.get_workflow_handle(job).describe())
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return False
        return True

    def terminate_job(self, job: str) -> None:
        """Terminate a job's workflow."""
        self.run_async(self.client.get_workflow_handle(job).terminate())

    def write_store(self, statement: str, *values: Any) -> int:
        """Write to the store directly; return the number of changed rows."""
        file = Path(self._stack.database_url.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(file, timeout=60)) as connection, connection:
            return connection.execute(statement, values).rowcount

    def read_store(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Read the store directly."""
        file = Path(self._stack.database_url.removeprefix("sqlite:///"))
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            return connection.execute(query, values).fetchall()


def _await_result(work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result(PATIENCE)


def _is_reset_point(event: HistoryEvent) -> bool:
    return event.HasField("workflow_task_completed_event_attributes")


def json_payload(value: Any) -> Payload:
    """Return a payload in the form of any JSON client."""
    return Payload(metadata={"encoding": b"json/plain"}, data=json.dumps(value).encode())


def encrypted_junk() -> Payload:
    """Return what looks like a payload of ours, with a key that Vault never made."""
    wrapped = f"vault:v1:{base64.b64encode(secrets.token_bytes(60)).decode()}".encode()
    return Payload(metadata={"encoding": ENCODING, WRAPPED_KEY_FIELD: wrapped}, data=secrets.token_bytes(100))


def raw_payload(data: bytes, encoding: bytes = b"json/plain") -> Payload:
    """Return a payload with this data, valid or not."""
    return Payload(metadata={"encoding": encoding}, data=data)


def job_input(order: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return the argument of the workflow Job for a signed order."""
    signed = {"statement": order["statement"], "signature": order["signature"]}
    said = {"spec": order["spec"], "params": order["params"], "bundle": order["bundle"], "parent": order["statement"].get("parent")}
    return {"job": order["id"], **said, "order": signed, **changes}


def grant(job: str, number: int, *answers: dict[str, Any]) -> dict[str, Any]:
    """Return a grant in the form of the workflow."""
    return {"id": f"r{job[1:]}-{number}", "number": number, "answers": list(answers)}


def answer(signed: dict[str, Any], *, name: str = "chief", tier: int = 3, **changes: Any) -> dict[str, Any]:
    """Return a signed decision as if it had been verified, in any person's name."""
    statement = signed["statement"]
    said = {"decision": statement["decision"], "ttl": statement["ttl"], "reason": statement["reason"], "at": statement["issued_at"]}
    return {"person": statement["person"], "name": name, "tier": tier, **said, "signed": signed, **changes}


def deny_job(ops: Human, lead: Human, security: Human) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return the order of a job that lead denied, its request, and a valid approval that security had signed before."""
    order = ops.order(spec("true", access(action="write")))
    job = ops.api.post("jobs", json=order).raise_for_status().json()["id"]
    request = ops.until(job, "awaiting_approval")["requests"][0]
    too_late = answer(security.decision(request))
    lead.answer(request, "deny").raise_for_status()
    ops.until(job, "denied")
    return order, request, too_late


def session_call(order: dict[str, Any], *items: dict[str, Any], **changes: Any) -> Call:
    """Return a call of the activity that issues credentials."""
    return Call("run_session", {"order": job_input(order, **changes), "granted": list(items)})


def ledger_entries(auditor: Human, job: str) -> list[dict[str, Any]]:
    """Return every entry of a job's chain, even if the read model does not have the job."""
    answer = auditor.api.get("ledger", params={"job": job, "limit": 1000}).raise_for_status()
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


def entry_data(auditor: Human, job: str, kind: str) -> list[dict[str, Any]]:
    """Return the data of a job's entries of one type."""
    return [entry["data"] for entry in ledger_entries(auditor, job) if entry["type"] == kind]


@contextmanager
def change_group(shop: Shop, group: str, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> Iterator[None]:
    """Change the members of a Vault group for a block."""
    with shop.admin() as vault:
        before = vault.get(f"identity/group/name/{group}").raise_for_status().json()["data"]["member_entity_ids"]
        members = sorted((set(before) | set(add)) - set(remove))
        vault.post(f"identity/group/name/{group}", json={"member_entity_ids": members}).raise_for_status()
        try:
            yield
        finally:
            vault.post(f"identity/group/name/{group}", json={"member_entity_ids": before}).raise_for_status()
