"""The one list of what a worker runs: workflows, activities, converter, and how errors cross into Temporal."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
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

from activities.deciding import Deciding
from activities.deps import Deps
from activities.ending import Ending
from activities.session.run import Sessions
from activities.session.sandbox import Sandbox
from activities.sweeping import Sweeping
from justenough.errors import GiveUp, JustEnoughError
from workflows.guard import Guard
from workflows.job import Job
from workflows.sweep import Prove, Sweep

WORKFLOWS = (Job, Guard, Sweep, Prove)
HEARTBEATS = timedelta(seconds=1)
"""How soon a session hears that its workflow is gone: terminated, deleted, cancelled."""


def build_worker(client: Client, deps: Deps, sandbox: Sandbox) -> Worker:
    """Return the worker of one installation, ready to run."""
    settings = deps.settings
    deciding, ending, sessions, sweeping = Deciding(deps), Ending(deps), Sessions(deps, sandbox), Sweeping(deps, client)
    return Worker(
        client,
        task_queue=settings.task_queue,
        workflows=WORKFLOWS,
        # The SDK's sandbox imports a workflow's modules anew for each run, which cost as much as everything else that a worker does for a
        # job. It only finds mistakes, and those are found without it: by import-linter, by tests that run each workflow inside it.
        workflow_runner=UnsandboxedWorkflowRunner(),
        activities=[
            deciding.decide_requests,
            deciding.take_answers,
            deciding.climb,
            deciding.withdraw,
            deciding.close,
            sessions.receive,
            ending.revoke_job,
            ending.revoke_credential,
            ending.prove_job,
            sweeping.sweep,
        ],
        activity_executor=ThreadPoolExecutor(settings.max_sessions + 16, thread_name_prefix="activity"),
        max_concurrent_activities=settings.max_sessions + 16,
        max_concurrent_local_activities=32,
        max_concurrent_workflow_tasks=32,
        max_heartbeat_throttle_interval=HEARTBEATS,
        default_heartbeat_throttle_interval=HEARTBEATS,
        graceful_shutdown_timeout=timedelta(seconds=settings.drain),
        interceptors=[ErrorsAcross()],
    )


log = structlog.get_logger()


class ErrorsAcross(Interceptor):
    """Turns our errors into Temporal's by what the caller must do; of an unexpected one only its type crosses, for a message may hold anything."""

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:  # noqa: A002 - the SDK's name
        """Return the translating step in front of an activity."""
        return _Translated(next)


class _Translated(ActivityInboundInterceptor):
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
