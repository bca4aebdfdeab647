"""A session worker that starts late, once there is a valid configuration; and which errors of activities Temporal hears."""

from __future__ import annotations

import asyncio
import uuid
from functools import partial
from typing import Any

import pytest
from temporalio import workflow
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, UnsandboxedWorkflowRunner, Worker

from activities.support.async_tools import run_beside
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.domain.core.errors import Conflict, RetryLater
from tests.support.domain_samples import SHOP
from tests.workflows.servers import run_real_server
from worker.temporal_worker import ErrorInterceptor, run_when_configured

ENV = {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": "5432", "MODEL_URL": "http://127.0.0.1:65535/v1"}


@workflow.defn
class Greeting:
    """Shows that a worker takes work."""

    @workflow.run
    async def run(self) -> str:
        return "hello"


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
    # Temporal would store a cause, with its message, too.
    assert (found.__cause__, found.__suppress_context__) == (None, found is not error)


async def test_a_session_worker_that_fails_is_replaced() -> None:
    """The server refuses the first worker, because it does not know that worker's namespace."""
    queue = uuid.uuid4().hex
    async with run_real_server() as bench:
        client = bench.client
        elsewhere = await Client.connect(client.service_client.config.target_host, namespace="missing")
        clients = iter((elsewhere, client))

        def build() -> Worker:
            return Worker(next(clients), task_queue=queue, workflows=[Greeting], workflow_runner=UnsandboxedWorkflowRunner())

        async with run_beside(partial(run_when_configured, ConfigFolder(SHOP, ENV), build)):
            assert await client.execute_workflow(Greeting.run, id=queue, task_queue=queue) == "hello"
        assert next(clients, None) is None
