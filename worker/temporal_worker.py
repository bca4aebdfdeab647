"""The one list of what a worker runs: workflows, activities, converter, and how errors cross into Temporal."""

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
    Interceptor,
    UnsandboxedWorkflowRunner,
    Worker,
)

from activities.control_group_activities import ControlGroupActivities
from activities.job_activities import JobActivities
from activities.process.sandbox import Sandbox
from activities.revocation_activities import RevocationActivities
from activities.session_activity import SessionActivities
from activities.sweep_activity import SweepActivities
from justenough.domain.core.errors import GiveUp, JustEnoughError
from justenough.services.dependencies import Deps
from workflows.guard import Guard
from workflows.job import Job
from workflows.sweep import Prove, Sweep

WORKFLOWS = (Job, Guard, Sweep, Prove)
BUILD_ID = version("justenough")
"""What Temporal's histories call this worker's code. Left out, the SDK reads and hashes every loaded module at each start."""
HEARTBEAT_THROTTLE = timedelta(seconds=1)
"""How soon a session hears that its workflow is gone: terminated, deleted, cancelled."""
MAX_CONCURRENT_ENDINGS = 256
"""A place for each job of several workers that died together: most revocations only wait for their second look, without a thread."""
MAX_CONCURRENT_LOCAL_ACTIVITIES = 32
STICKY_TIMEOUT = timedelta(seconds=2)
"""What a workflow's next step waits for the worker that knows it, before any other may take it: for a job whose worker died, this much longer."""
MAX_CONCURRENT_POLLS = 2
"""Activities that one worker asks for at once, per queue. Each is one that a worker which hangs takes along, until its heartbeat is missed."""


@asynccontextmanager
async def run_workers(client: Client, deps: Deps, sandbox: Sandbox) -> AsyncIterator[None]:
    """Work for one installation until the block ends; then let sessions finish within `drain`, and end and revoke those that do not.

    Endings have a queue and places of their own, which outlive the sessions': however many jobs run, one can always be killed.
    """
    settings, sessions = deps.settings, SessionActivities(deps, sandbox)
    deciding, locking, ending, sweeping = (
        JobActivities(deps),
        ControlGroupActivities(deps),
        RevocationActivities(deps),
        SweepActivities(deps, client),
    )
    quick: list[Callable[..., Any]] = [
        deciding.decide_requests,
        locking.open_locks,
        deciding.take_answers,
        deciding.open_request,
        deciding.climb,
        deciding.withdraw,
        deciding.close,
        ending.revoke_job,
        ending.revoke_credential,
        ending.prove_job,
        sweeping.sweep,
    ]
    endings = Worker(
        client,
        task_queue=f"{settings.task_queue}-endings",
        activities=quick,
        activity_executor=ThreadPoolExecutor(MAX_CONCURRENT_ENDINGS, thread_name_prefix="ending"),
        max_concurrent_activities=MAX_CONCURRENT_ENDINGS,
        max_concurrent_activity_task_polls=MAX_CONCURRENT_POLLS,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        interceptors=[ErrorInterceptor()],
        build_id=BUILD_ID,
    )
    main = Worker(
        client,
        task_queue=settings.task_queue,
        workflows=WORKFLOWS,
        # The SDK's sandbox imports a workflow's modules anew for each run, which cost as much as everything else that a worker does for a
        # job. It only finds mistakes, and those are found without it: by import-linter, by tests that run each workflow inside it.
        workflow_runner=UnsandboxedWorkflowRunner(),
        # The quick ones run here inside workflow tasks; what asks for them on this queue otherwise is a stranger, and gets its answer.
        activities=[*quick, sessions.receive],
        # Made as they are needed, and sessions need none; fewer than there are places, and the SDK warns.
        activity_executor=ThreadPoolExecutor(max(MAX_CONCURRENT_LOCAL_ACTIVITIES, settings.max_sessions), thread_name_prefix="activity"),
        max_concurrent_activities=settings.max_sessions,
        max_concurrent_activity_task_polls=MAX_CONCURRENT_POLLS,
        max_concurrent_local_activities=MAX_CONCURRENT_LOCAL_ACTIVITIES,
        max_concurrent_workflow_tasks=32,
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        max_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        default_heartbeat_throttle_interval=HEARTBEAT_THROTTLE,
        graceful_shutdown_timeout=timedelta(seconds=settings.drain),
        interceptors=[ErrorInterceptor()],
        build_id=BUILD_ID,
    )
    async with endings, main:
        yield


log = structlog.get_logger()


class ErrorInterceptor(Interceptor):
    """Turns our errors into Temporal's by what the caller must do; of an unexpected one only its type crosses, for a message may hold anything."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        """Return the translating step in front of an activity."""
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
            raise ApplicationError("unexpected error; the worker's log has it", type=type(error).__name__) from None
