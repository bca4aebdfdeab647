"""Whether store, ledger, Temporal, Vault and the target tell one story of a job, asked of each by itself."""

from __future__ import annotations

import asyncio
from typing import Any

from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from tests.people import Human
from tests.shop import Login, Shop

CLOSED_ITSELF = WorkflowExecutionStatus.COMPLETED
Told = tuple[WorkflowExecutionStatus | None, str | None]
"""How a workflow closed and which ending it returned; (None, None) where Temporal does not know it."""


def assert_one_outcome(ops: Human, shop: Shop, job: str, *logins: Login) -> dict[str, Any]:
    """Return a job that has ended; fail unless everyone tells exactly one ending of it, and nothing of it is alive."""
    seen = ops.job(job)
    ended = [entry["data"] for entry in ops.ledger(job) if entry["type"] == "job.ended"]
    assert [(item["state"], item["exit_code"], item["reason"]) for item in ended] == [(seen["state"], seen["exit_code"], seen["reason"])]
    assert seen["revocation"]["state"] in {"confirmed", "none"}, seen["revocation"]
    assert_workflow_agrees(told_by_temporal(shop, job), seen["state"])
    shop.assert_dead(seen, *logins)
    return seen


def told_by_temporal(shop: Shop, job: str) -> Told:
    """Ask Temporal about a job's workflow."""

    async def ask() -> Told:
        client = await Client.connect(str(shop.stack.temporal))
        handle = client.get_workflow_handle(job)
        try:
            status = (await handle.describe()).status
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None, None
        return status, str((await handle.result())["state"]) if status is CLOSED_ITSELF else None

    return asyncio.run(ask())


def assert_workflow_agrees(told: Told, state: str) -> None:
    """Fail where the workflow still runs, or returned another ending than the one that is recorded."""
    status, returned = told
    assert status is not WorkflowExecutionStatus.RUNNING, f"the job is {state}, and its workflow still runs"
    if status is CLOSED_ITSELF:
        assert returned == state
