"""The workflows and activities that a worker runs, and how their errors reach Temporal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.metadata import version
from typing import Any

import structlog
from temporalio.client import Client
from temporalio.exceptions import ApplicationError, FailureError
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    FixedSizeSlotSupplier,
    Interceptor,
    UnsandboxedWorkflowRunner,
    Worker,
    WorkerTuner,
)

from activities.job_activities import JobActivities
from activities.process.sandbox import Sandbox
from activities.revocation_activities import RevocationActivities
from activities.session_activity import SessionActivities
from activities.support.async_tools import run_beside
from activities.sweep_activity import SweepActivities
from justenough.domain.core.errors import GiveUp, JustEnoughError
from justenough.services.dependencies import Deps
from worker.intake import Intake, Slots
from workflows.guard import Guard
from workflows.job import Job
from workflows.sweep import Prove, Sweep

WORKFLOWS = (Job, Guard, Sweep, Prove)
BUILD_ID = version("justenough")
"""The version of this code in Temporal's histories. Without it the SDK reads and hashes every loaded module at each start."""
HEARTBEAT_THROTTLE = timedelta(seconds=1)
"""Maximum time until a session learns that its workflow was terminated, deleted or cancelled."""
MAX_CONCURRENT_ENDINGS = 256
"""Enough for the jobs of several workers that die together. Most revocations only wait for their second check, without a thread."""
MAX_CONCURRENT_LOCAL_ACTIVITIES = 32
MAX_CONCURRENT_WORKFLOW_TASKS = 32
NO_SLOTS = FixedSizeSlotSupplier(0)
"""For kinds of tasks that a worker does not take."""
STICKY_TIMEOUT = timedelta(seconds=2)
"""How long a workflow task waits for the worker that has the workflow in its cache.

If that worker has died, the job waits this much longer.
"""
DEADLOCK_TIMEOUT_S = 60.0
"""How long a workflow may work without yielding.

With the SDK's 2 s, a workflow on a busy or suspended machine would be considered deadlocked and interrupted; the SDK may then never evict
it, so that it is stuck until its worker restarts.
"""
MAX_CONCURRENT_POLLS = 2
"""Polls for activities at once, per queue. A worker that hangs can hold this many activities until their heartbeats time out."""


@asynccontextmanager
async def run_workers(client: Client, deps: Deps, sandbox: Sandbox) -> AsyncIterator[None]:
    """Run the workers of one installation until the block ends. Then sessions may finish within `drain`; the rest are ended and revoked.

    Revocations have their own queue and slots, which outlive those of the sessions, so that a job can be killed however many jobs run.
    """
    settings, sessions, intake = deps.settings, SessionActivities(deps, sandbox), Intake(deps)
    deciding, sweeping = JobActivities(deps), SweepActivities(deps, client)
    ending = RevocationActivities(deps, reaches_vault=intake.reaches_vault)
    quick: list[Callable[..., Any]] = [
        deciding.decide_requests,
        deciding.take_place,
        deciding.open_locks,
        deciding.take_answers,
        deciding.open_request,
        deciding.climb,
        deciding.withdraw_requests,
        deciding.close,
        ending.revoke_job,
        ending.revoke_credential,
        ending.prove_job,
        sweeping.sweep,
    ]
    common: dict[str, Any] = {
        "max_concurrent_activity_task_polls": MAX_CONCURRENT_POLLS,
        "max_heartbeat_throttle_interval": HEARTBEAT_THROTTLE,
        "default_heartbeat_throttle_interval": HEARTBEAT_THROTTLE,
        "interceptors": [ErrorInterceptor()],
        "build_id": BUILD_ID,
    }
    await intake.check()
    endings = Worker(
        client,
        task_queue=f"{settings.task_queue}-endings",
        activities=quick,
        activity_executor=ThreadPoolExecutor(MAX_CONCURRENT_ENDINGS, thread_name_prefix="ending"),
        tuner=build_tuner(activities=intake.slots(MAX_CONCURRENT_ENDINGS, for_sessions=False)),
        **common,
    )
    # The pool creates threads on demand, and sessions need none. With fewer threads than slots the SDK warns.
    threads = ThreadPoolExecutor(max(MAX_CONCURRENT_LOCAL_ACTIVITIES, settings.max_sessions), thread_name_prefix="activity")
    main = Worker(
        client,
        task_queue=settings.task_queue,
        workflows=WORKFLOWS,
        # The SDK's sandbox imports a workflow's modules again for each run, which costs as much as all other work for a job. It only
        # detects mistakes; import-linter and tests that run each workflow in the sandbox detect them too.
        workflow_runner=UnsandboxedWorkflowRunner(),
        # The quick activities run here as local activities. They are also registered so that anybody's request on this queue gets an answer.
        activities=[*quick, sessions.receive],
        activity_executor=threads,
        tuner=build_tuner(
            workflows=intake.slots(MAX_CONCURRENT_WORKFLOW_TASKS, for_sessions=False),
            activities=intake.slots(settings.max_sessions, for_sessions=True),
            local_activities=MAX_CONCURRENT_LOCAL_ACTIVITIES,
        ),
        graceful_shutdown_timeout=timedelta(seconds=settings.drain),
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        **common,
    )
    extend_deadlock_timeout(main)
    # The clock keeps running while sessions drain, and does not need Temporal's task queues.
    async with run_beside(sweeping.sweep_by_clock), run_beside(intake.watch), endings, main:
        yield


def build_tuner(*, activities: Slots, workflows: Slots | FixedSizeSlotSupplier = NO_SLOTS, local_activities: int = 0) -> WorkerTuner:
    """Return the tuner of a worker with these slots."""
    return WorkerTuner.create_composite(
        workflow_supplier=workflows,
        activity_supplier=activities,
        local_activity_supplier=FixedSizeSlotSupplier(local_activities),
        nexus_supplier=NO_SLOTS,
    )


def extend_deadlock_timeout(worker: Worker) -> None:
    """Allow this worker's workflows to work for DEADLOCK_TIMEOUT_S without yielding.

    The SDK has no setting for it, except one for debuggers.
    """
    workflows: Any = worker._workflow_worker  # noqa: SLF001 - as said above; a test notices if the SDK renames it
    workflows._deadlock_timeout_seconds = DEADLOCK_TIMEOUT_S  # noqa: SLF001 - the same


log = structlog.get_logger()


class ErrorInterceptor(Interceptor):
    """Turns our errors into retryable or final Temporal errors. For an unexpected error, passes on only its type: the message may contain secrets."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        return _ErrorTranslator(next)


class _ErrorTranslator(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:  # noqa: A002 - the SDK's name
        try:
            return await super().execute_activity(input)
        except (FailureError, asyncio.CancelledError):
            raise
        except JustEnoughError as error:
            raise ApplicationError(str(error), type=type(error).__name__, non_retryable=isinstance(error, GiveUp)) from None
        except Exception as error:
            log.exception("activity failed unexpectedly", activity=input.fn.__name__)
            raise ApplicationError("unexpected error; the worker's log has the details", type=type(error).__name__) from None
