"""The workflows and activities that a worker runs, and how their errors reach Temporal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
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

from activities.job_activities import JobActivities
from activities.process.sandbox import Sandbox
from activities.revocation_activities import RevocationActivities
from activities.session_activity import SessionActivities
from activities.support.async_tools import run_beside, wait_up_to
from activities.sweep_activity import SweepActivities
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.domain.core.errors import GiveUp, JustEnoughError
from justenough.services.dependencies import Deps
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
STICKY_TIMEOUT = timedelta(seconds=2)
"""How long a workflow task waits for the worker that has the workflow in its cache.

If that worker has died, the job waits this much longer.
"""
CONFIG_CHECK_INTERVAL = timedelta(seconds=1)
"""How often a worker without a valid configuration checks whether it has been fixed."""
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

    Revocations have their own queue and slots, which outlive the sessions', so that a job can be killed however many jobs run. Without a
    valid configuration it takes no sessions: jobs wait for another worker, or until the configuration is fixed.
    """
    settings, sessions = deps.settings, SessionActivities(deps, sandbox)
    deciding, ending, sweeping = JobActivities(deps), RevocationActivities(deps), SweepActivities(deps, client)
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
    endings = Worker(
        client,
        task_queue=f"{settings.task_queue}-endings",
        activities=quick,
        activity_executor=ThreadPoolExecutor(MAX_CONCURRENT_ENDINGS, thread_name_prefix="ending"),
        max_concurrent_activities=MAX_CONCURRENT_ENDINGS,
        **common,
    )
    # The pool creates threads on demand, and sessions need none. With fewer threads than slots the SDK warns.
    threads = ThreadPoolExecutor(max(MAX_CONCURRENT_LOCAL_ACTIVITIES, settings.max_sessions), thread_name_prefix="activity")
    taking: dict[str, Any] = {
        "task_queue": settings.task_queue,
        # The quick activities run here as local activities. They are also registered so that a stranger's request on this queue gets an answer.
        "activities": [*quick, sessions.receive],
        "activity_executor": threads,
        "max_concurrent_activities": settings.max_sessions,
        "graceful_shutdown_timeout": timedelta(seconds=settings.drain),
        **common,
    }
    is_ready = await asyncio.to_thread(lambda: deps.config.digest_in_force is not None)
    main = Worker(
        client,
        workflows=WORKFLOWS,
        # The SDK's sandbox imports a workflow's modules again for each run, which costs as much as all other work for a job. It only
        # detects mistakes; import-linter and tests that run each workflow in the sandbox detect them too.
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_concurrent_local_activities=MAX_CONCURRENT_LOCAL_ACTIVITIES,
        max_concurrent_workflow_tasks=32,
        sticky_queue_schedule_to_start_timeout=STICKY_TIMEOUT,
        # A worker that takes no sessions must still run workflows, which kill jobs, and revoke what these held.
        no_remote_activities=not is_ready,
        **taking,
    )
    extend_deadlock_timeout(main)
    # The clock keeps running while sessions drain, and does not need Temporal's task queues.
    async with run_beside(sweeping.sweep_by_clock), endings, main:
        if is_ready:
            yield
            return
        log.error("worker only revokes: it takes no jobs without a valid configuration", alarm=deps.config.alarm)
        async with run_beside(partial(run_when_configured, deps.config, lambda: Worker(client, **taking))):
            yield


def extend_deadlock_timeout(worker: Worker) -> None:
    """Allow this worker's workflows to work for DEADLOCK_TIMEOUT_S without yielding.

    The SDK has no setting for it, except one for debuggers.
    """
    workflows: Any = worker._workflow_worker  # noqa: SLF001 - as said above; a test notices if the SDK renames it
    workflows._deadlock_timeout_seconds = DEADLOCK_TIMEOUT_S  # noqa: SLF001 - the same


async def run_when_configured(config: ConfigFolder, build_worker: Callable[[], Worker], ended: asyncio.Event) -> None:
    """Run a worker as soon as a valid configuration is in force, until the event is set; if the worker fails, run another."""
    while not ended.is_set():
        try:
            if await asyncio.to_thread(lambda: config.digest_in_force):
                async with build_worker():
                    log.info("worker ready", config_digest=config.digest_in_force)
                    await ended.wait()
        except Exception:
            log.exception("worker takes no jobs for now: its session worker failed")
        await wait_up_to(CONFIG_CHECK_INTERVAL, ended)


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
