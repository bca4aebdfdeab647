"""A session worker that starts late, once there is a valid configuration."""

from __future__ import annotations

import uuid
from functools import partial

from temporalio import workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from activities.support.async_tools import run_beside
from justenough.adapters.configuration.folder import ConfigFolder
from tests.support.domain_samples import SHOP
from tests.workflows.servers import run_real_server
from worker.temporal_worker import run_when_configured

ENV = {"SHOP_HOST": "127.0.0.1", "SHOP_PORT": "5432", "MODEL_URL": "http://127.0.0.1:65535/v1"}


@workflow.defn
class Greeting:
    """Shows that a worker takes work."""

    @workflow.run
    async def run(self) -> str:
        return "hello"


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
