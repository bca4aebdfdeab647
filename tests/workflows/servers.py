"""The two servers that workflows are tested on, a worker with the fakes, and jobs on it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from temporalio.api.enums.v1 import EventType, IndexedValueType
from temporalio.api.operatorservice.v1 import AddSearchAttributesRequest
from temporalio.client import Client, WorkflowHandle
from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes, WorkflowIDReusePolicy
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker
from temporalio.worker.workflow_sandbox import SandboxedWorkflowRunner

from console.temporal.fire_workflow import Fire
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.approvals.tiers import Tiers
from justenough.domain.contracts.workflow_messages import JobInput, JobResult
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState
from tests.workflows.fakes import TIERS, Fakes
from tests.workflows.known_jobs import Known
from worker.temporal_worker import extend_deadlock_timeout
from workflows.guard import Guard
from workflows.job import Job
from workflows.sweep import Prove, Sweep

WORKFLOWS = (Job, Guard, Sweep, Prove, Fire)
QUEUE = "justenough-test"
HEARTBEATS = timedelta(milliseconds=50)
ATTRIBUTES = tuple(SearchAttributeKey.for_keyword(f"JustEnough{name}") for name in ("State", "Environment", "Requester"))
PROGRAMS = Path(sys.executable).parent
START_ATTEMPTS = 20


@dataclass(frozen=True)
class StartedJob:
    """One job that was started: its workflow, and what is behind its activities."""

    handle: WorkflowHandle[Any, JobResult]
    known: Known

    async def result(self) -> JobResult:
        """Return what it came to."""
        return await self.handle.result()

    async def duration(self) -> timedelta:
        """Return the time from the workflow's start to its close, by the server's clock, which may have skipped on since."""
        seen = await self.handle.describe()
        assert seen.close_time
        return seen.close_time - seen.start_time

    async def requests(self) -> list[tuple[str, int]]:
        """Return state and tier of each request that people were asked for, as the workflow says."""
        return [(item["state"], item["tier"]) for item in (await self.view())["requests"].values()]

    async def wait_for_state(self, state: str) -> None:
        """Return once the workflow says that it is in a state."""
        while (await self.view())["state"] != state:
            pass

    async def wait_for_timer(self) -> None:
        """Return once it waits for people, seen by the clock that it has set. A query would wake a worker that has forgotten it."""
        while "timer_started" not in await self.history():
            pass

    async def wait_for_issue(self) -> None:
        """Return once its session has issued."""
        await self.known.until(lambda known: "issued" in known.ledger)

    async def answer(self, *people: str, decision: str = "approve", number: int = 1) -> None:
        """Have people answer one of its requests."""
        for person in people:
            await self.handle.signal("decide", self.known.answer(person, decision, number))

    async def history(self) -> list[str]:
        """Return the types of its history's events."""
        history = await self.handle.fetch_history()
        return [EventType.Name(item.event_type).removeprefix("EVENT_TYPE_").lower() for item in history.events]

    async def view(self) -> dict[str, Any]:
        """Return what it says of itself."""
        seen: dict[str, Any] = await self.handle.query("view")
        return seen


Lost = Mapping[str, StartedJob]
"""Jobs whose worker was lost, by what else was wrong."""


class Bench:
    """One server with a worker on it."""

    def __init__(self, env: WorkflowEnvironment, tiers: Tiers = TIERS) -> None:
        self.env = env
        self.client: Client = env.client
        self.fakes = Fakes(self.now, tiers)

    async def now(self) -> datetime:
        """Return the server's time."""
        return datetime.now(UTC) if not self.env.supports_time_skipping else await self.env.get_current_time()

    @asynccontextmanager
    async def worker(self, queue: str = QUEUE, *, sandboxed: bool = False, **more: Any) -> AsyncIterator[None]:
        """Work with the fakes until the block ends, on the queue and on that for endings.

        `sandboxed`: in the SDK's sandbox, which finds mistakes that replay may not; the real worker goes without.
        """
        runner = SandboxedWorkflowRunner() if sandboxed else UnsandboxedWorkflowRunner()
        # A cancel travels back with a heartbeat: the default would wait eight seconds for the next one.
        soon: dict[str, Any] = {"max_heartbeat_throttle_interval": HEARTBEATS, "default_heartbeat_throttle_interval": HEARTBEATS}
        worker = Worker(
            self.client, task_queue=queue, workflows=WORKFLOWS, activities=self.fakes.activities, workflow_runner=runner, **soon, **more
        )
        extend_deadlock_timeout(worker)
        async with Worker(self.client, task_queue=f"{queue}-endings", activities=self.fakes.activities, **soon), worker:
            yield

    async def start(self, queue: str = QUEUE, *, run_timeout: timedelta | None = None, **setup: Any) -> StartedJob:
        """Start a job that meets what `setup` says (fields of `Known`)."""
        known = self.fakes.know(Known(job=new_job_id("test", now=datetime.now(UTC)), **setup))
        values = zip(ATTRIBUTES, (JobState.PENDING.value, "prod", "ops"), strict=True)
        handle = await self.client.start_workflow(
            "Job",
            order_of(known.job),
            id=known.job,
            task_queue=queue,
            id_reuse_policy=WorkflowIDReusePolicy.REJECT_DUPLICATE,
            result_type=JobResult,
            run_timeout=run_timeout,
            search_attributes=TypedSearchAttributes([SearchAttributePair(key, value) for key, value in values]),
        )
        return StartedJob(handle, known)


def order_of(job: str) -> JobInput:
    """Return an order; what is in it matters to activities only."""
    statement = {"type": "order", "job": job, "reason": "a test"}
    return JobInput(job=job, spec={"name": "refund-triage"}, order=SignedStatement(statement=statement, signature="vault:v1:test"))


async def start_patiently(start: Callable[[], Awaitable[WorkflowEnvironment]]) -> WorkflowEnvironment:
    """Start a server. The SDK gives it five seconds, and a busy machine may take longer."""
    for _ in range(START_ATTEMPTS - 1):
        try:
            return await start()
        except RuntimeError:
            continue
    return await start()


@asynccontextmanager
async def run_skipping_server() -> AsyncIterator[Bench]:
    """A server that skips the time that nothing happens in, while a result is awaited."""
    path = str(PROGRAMS / "temporal-test-server")
    env = await start_patiently(
        lambda: WorkflowEnvironment.start_time_skipping(test_server_existing_path=path, data_converter=pydantic_data_converter)
    )
    async with env:
        attributes = {key.name: IndexedValueType.INDEXED_VALUE_TYPE_KEYWORD for key in ATTRIBUTES}
        _ = await env.client.operator_service.add_search_attributes(AddSearchAttributesRequest(search_attributes=attributes))
        yield Bench(env)


@asynccontextmanager
async def run_real_server(tiers: Tiers = TIERS) -> AsyncIterator[Bench]:
    """A real server in memory."""
    path = str(PROGRAMS / "temporal")
    env = await start_patiently(
        lambda: WorkflowEnvironment.start_local(
            dev_server_existing_path=path, data_converter=pydantic_data_converter, search_attributes=ATTRIBUTES
        )
    )
    async with env:
        yield Bench(env, tiers)
