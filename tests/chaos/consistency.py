"""Checks that store, ledger, Temporal, Vault and target, each queried separately, agree about a job."""

from __future__ import annotations

from typing import Any

from temporalio.client import WorkflowExecutionStatus

from tests.chaos.administrator import Administrator
from tests.support.people import Human
from tests.support.shop import Login, Shop
from tests.support.wait import until


def assert_one_outcome(ops: Human, shop: Shop, job: str, *logins: Login) -> dict[str, Any]:
    """Return an ended job. Fail unless all of them report the same single ending, and no access of it is left."""
    seen = ops.job(job)
    assert seen["revocation"]["state"] in {"confirmed", "none"}, (seen["revocation"], ledger_summary(ops, job))
    with Administrator.connect(shop.stack) as administrator:
        assert_sources_agree(seen, ops, administrator)
    shop.assert_dead(seen, *logins)
    return seen


def ledger_summary(ops: Human, job: str) -> list[tuple[str, str, str]]:
    """Return time, type and author of a job's ledger entries, for the message of a failed test."""
    return [(entry["at"], entry["type"], entry["data"].get("by", "")) for entry in ops.ledger(job)]


def endings(ops: Human, job: str) -> list[dict[str, Any]]:
    """Return the ledger's record of a job's end."""
    return [entry["data"] for entry in ops.ledger(job) if entry["type"] == "job.ended"]


def assert_sources_agree(seen: dict[str, Any], ops: Human, administrator: Administrator) -> None:
    """Fail unless store, ledger and Temporal agree on how a job ended."""
    assert endings(ops, seen["id"]) == [{name: seen[name] for name in ("state", "exit_code", "reason")}]
    # It closes right after it has recorded the end.
    until(
        lambda: administrator.status(seen["id"]) is not WorkflowExecutionStatus.RUNNING,
        f"the workflow of a job that is {seen['state']} closes",
    )
    status = administrator.status(seen["id"])
    if status is WorkflowExecutionStatus.COMPLETED:
        assert administrator.result(seen["id"])["state"] == seen["state"]
