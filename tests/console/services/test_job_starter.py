"""A job that was recorded but not started is started; a job that a worker has ever claimed is not."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from temporalio.client import WorkflowExecutionStatus

from console.services.job_starter import start_pending_jobs
from console.temporal.client import TemporalGateway
from justenough.adapters.configuration.settings import Settings
from justenough.domain.approvals.statements import SignedStatement
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.services.ledger_events import job_submitted_event
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.console.served_console import Served, serve_console
from tests.support.claims import claim_job

NONE = timedelta(seconds=-1)


def record_order(served: Served) -> str:
    """An order that a console recorded before it died."""
    body = served.people["ops"].order()
    signed = SignedStatement(statement=body["statement"], signature=body["signature"])
    order = JobInput(job=body["id"], spec=body["spec"], order=signed)
    verified = verify_order(served.console.deps, order, now=datetime.now(UTC))
    assert isinstance(verified, VerifiedOrder)
    served.store.ledger.append([job_submitted_event(order, verified, at=verified.statement.issued_at)])
    return order.job


async def test_an_order_that_was_accepted_but_not_started_is_started(served: Served) -> None:
    job = record_order(served)
    assert not await served.console.gateway.has_workflow(job)
    assert job in await start_pending_jobs(served.console.deps, served.console.gateway, older_than=NONE)
    description = await served.temporal.get_workflow_handle(job).describe()
    assert description.status == WorkflowExecutionStatus.RUNNING
    assert await start_pending_jobs(served.console.deps, served.console.gateway, older_than=NONE) == ()


async def test_a_job_that_a_worker_claimed_is_never_started_again(served: Served) -> None:
    job = record_order(served)
    claim_job(served.store, job, run="run", owner="a worker", now=datetime.now(UTC))
    assert await start_pending_jobs(served.console.deps, served.console.gateway, older_than=NONE) == ()
    assert not await served.console.gateway.has_workflow(job)
    served.end(job)


async def test_a_job_that_is_claimed_while_temporal_is_asked_is_not_started(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    job, ask = record_order(served), TemporalGateway.has_workflow

    async def has_workflow(gateway: TemporalGateway, asked: str) -> bool:
        """Answer, and let a run claim the job, end and be deleted before the answer arrives."""
        known = await ask(gateway, asked)
        if asked == job:
            claim_job(served.store, job, run="run", owner="a worker", now=datetime.now(UTC))
        return known

    monkeypatch.setattr(TemporalGateway, "has_workflow", has_workflow)
    assert await start_pending_jobs(served.console.deps, served.console.gateway, older_than=NONE) == ()
    assert not await ask(served.console.gateway, job)
    served.end(job)


async def test_an_order_is_accepted_while_temporal_is_away_and_a_kill_still_works(served: Served, settings: Settings) -> None:
    away = await TemporalGateway.connect(settings.model_copy(update={"temporal_address": "127.0.0.1:1"}), None)
    async with serve_console(dataclasses.replace(served.console, gateway=away)) as http:
        ops = served.people["ops"]
        body = ops.order()
        answer = await http.post("/api/v1/jobs", json=body, headers=ops.bearer)
        assert answer.status_code == 201, answer.text
        assert (await http.post(f"/api/v1/jobs/{body['id']}/cancel", headers=ops.bearer)).status_code == 503
        assert (await http.post(f"/api/v1/jobs/{body['id']}/kill", headers=ops.bearer)).status_code == 202
    claim = served.store.claims.get(body["id"])
    assert claim is not None
    assert not claim.open
