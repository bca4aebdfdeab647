"""A reset ends a job and never runs it again: the second run issues nothing. chaos/test_workflow_endings.py resets running jobs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.attacks.intruder import Intruder, entry_data
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Login, Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

EARLY, LATE = 0, -1


def wait_for_refusals(auditor: Human, job: str) -> list[str]:
    """Wait until a job's second run was refused; return the reason."""
    return until(lambda: [entry["why"] for entry in entry_data(auditor, job, "job.refused")], "the attempt is in the ledger")


def assert_once(auditor: Human, shop: Shop, job: str, *logins: Login, count: int = 1) -> dict[str, Any]:
    """Fail unless the job got so many credentials in all, and none of them is active."""
    assert len(entry_data(auditor, job, "credential.issued")) == count
    seen = auditor.job(job)
    shop.assert_dead(seen, *logins)
    return seen


@pytest.mark.parametrize("to", [EARLY, LATE], ids=["early", "late"])
def test_a_reset_of_a_finished_job_issues_nothing(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness, to: int
) -> None:
    job = ops.launch(spec(witness.hand_over))
    login = witness.login()
    assert ops.until(job)["state"] == "succeeded"
    intruder.reset_job(job, to=to)
    assert assert_once(auditor, shop, job, login)["state"] == "succeeded"
    if to == EARLY:
        assert "already run or ended" in wait_for_refusals(auditor, job)[0]


def test_a_reset_of_an_approved_job_issues_nothing_for_the_same_approval(
    ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness
) -> None:
    job = ops.launch(spec(witness.hand_over, access(action="write")))
    assert lead.answer(ops.until(job, "awaiting_approval")["requests"][0]).status_code in ACCEPTED_STATUSES
    login = witness.login()
    assert ops.until(job)["state"] == "succeeded"
    intruder.reset_job(job, to=EARLY)
    assert_once(auditor, shop, job, login)
    assert "already run or ended" in wait_for_refusals(auditor, job)[0]


@pytest.mark.parametrize("how", ["cancelled", "denied"])
def test_a_job_that_ended_without_running_cannot_be_started_by_a_reset_and_a_late_approval(
    ops: Human, lead: Human, security: Human, auditor: Human, shop: Shop, intruder: Intruder, how: str
) -> None:
    job = ops.launch(spec("true", access(action="write")))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    signed = security.decision(request)
    ended = ops.api.post(f"jobs/{job}/cancel") if how == "cancelled" else lead.answer(request, "deny")
    assert ended.is_success
    assert ops.until(job)["state"] == how
    intruder.reset_job(job, to=EARLY, then=signed)
    assert assert_once(auditor, shop, job, count=0)["state"] == how
    assert "already run or ended" in wait_for_refusals(auditor, job)[0]
    assert all(entry["decision"] == "deny" for entry in entry_data(auditor, job, "approval.decided"))
