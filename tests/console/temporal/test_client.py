"""Errors of Temporal: only a workflow that it does not know is gone; without the namespace, nothing is known about any workflow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from console.services.console import build_console
from console.services.job_starter import start_pending_jobs
from console.temporal.client import TemporalGateway, TemporalUnavailable, WorkflowGone
from justenough.adapters.configuration.settings import Settings
from tests.console.served_console import Served, serve_console
from tests.support.silent_listener import swallow_connections

pytestmark = pytest.mark.servers

UNKNOWN_JOB = "j-dev-0000000000000000000000none"
Call = Callable[[TemporalGateway], Awaitable[object]]
ON_A_WORKFLOW: dict[str, Call] = {
    "cancel": lambda gateway: gateway.cancel(UNKNOWN_JOB),
    "kill": lambda gateway: gateway.kill(UNKNOWN_JOB),
    "pause": lambda gateway: gateway.set_schedule_paused("unknown", "", paused=True),
}
EVERY_CALL: dict[str, Call] = {
    **ON_A_WORKFLOW,
    "has_workflow": lambda gateway: gateway.has_workflow(UNKNOWN_JOB),
    "schedule_status": lambda gateway: gateway.schedule_status("unknown"),
    "delete_schedule": lambda gateway: gateway.delete_schedule("unknown"),
    "schedule_names": lambda gateway: gateway.schedule_names(),
    "start_sweep": lambda gateway: gateway.start_sweep(),
    "last_polls": lambda gateway: gateway.last_polls(),
    "ping": lambda gateway: gateway.ping(),
}


@pytest.fixture
def unknown_namespace(settings: Settings) -> Settings:
    """Settings that name a namespace which Temporal does not have."""
    return settings.model_copy(update={"temporal_namespace": "nowhere"})


@pytest.mark.parametrize("call", ON_A_WORKFLOW.values(), ids=ON_A_WORKFLOW)
async def test_a_workflow_that_temporal_does_not_know_is_gone(settings: Settings, call: Call) -> None:
    with pytest.raises(WorkflowGone):
        await call(await TemporalGateway.connect(settings, None))


@pytest.mark.parametrize("call", EVERY_CALL.values(), ids=EVERY_CALL)
async def test_without_the_namespace_temporal_is_unavailable_and_the_error_names_it(unknown_namespace: Settings, call: Call) -> None:
    with pytest.raises(TemporalUnavailable, match="Namespace nowhere is not found"):
        await call(await TemporalGateway.connect(unknown_namespace, None))


async def test_every_call_ends_though_temporal_cannot_be_connected_to(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client's own timeout does not run while it connects."""
    monkeypatch.setattr("justenough.adapters.temporal.RECONNECT_TIMEOUT", timedelta(hours=1))
    with swallow_connections() as address:
        gateway = await TemporalGateway.connect(settings.model_copy(update={"temporal_address": address}), None)
        # Leave out the list of schedules, whose limit is longer.
        calls = [call(gateway) for name, call in EVERY_CALL.items() if name != "schedule_names"]
        ended = await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 90)
    assert {type(error) for error in ended} == {TemporalUnavailable}


async def test_a_job_whose_start_temporal_answers_with_not_found_is_accepted_and_started_later(
    settings: Settings, unknown_namespace: Settings, served: Served
) -> None:
    async with build_console(unknown_namespace) as console, serve_console(console) as http:
        ops = served.people["ops"]
        answer = await http.post("/api/v1/jobs", json=ops.order(), headers=ops.bearer)
        health = (await http.get("/readyz")).json()
    assert answer.status_code == 201, answer.text
    assert "Namespace nowhere is not found" in str(health)
    job, gateway = answer.json()["id"], await TemporalGateway.connect(settings, None)
    assert not await gateway.has_workflow(job)
    assert job in await start_pending_jobs(served.console.deps, gateway, older_than=timedelta(0))
    assert await gateway.has_workflow(job)
