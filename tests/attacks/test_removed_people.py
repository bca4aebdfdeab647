"""The right to approve is checked again before each issue: an approver who lost it does not count."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.attacks.intruder import Intruder, answer, change_group, entry_data, grant, json_payload, ledger_entries, session_call
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

WRITE = access(action="write", deliver={})
REFUND = access("refunds-db", "write", deliver={})


TWO = ("approvers: [support-leads], quorum: 1", "approvers: [support-leads, security], quorum: 2")
QUICK = ("quorum: 1, respond_within: 15m", "quorum: 1, respond_within: 1s")


@contextmanager
def change_tier_one(shop: Shop, ops: Human, change: tuple[str, str]) -> Iterator[None]:
    """Change tier 1 for a block, and wait until the worker has reloaded it."""
    file = shop.config / "approvals.yaml"
    before = file.read_text()
    assert change[0] in before
    file.write_text(before.replace(*change))
    try:
        wait_for_tier(ops, ordinary=False)
        yield
    finally:
        file.write_text(before)
        wait_for_tier(ops, ordinary=True)


def wait_for_tier(ops: Human, *, ordinary: bool) -> None:
    """Wait until the worker uses the shop's own tier 1, or until it does not."""
    end = time.monotonic() + 180
    while True:
        (request,) = request_approvals(ops, WRITE)
        assert ops.api.post(f"jobs/{request['job_id']}/cancel").status_code == 202
        opened = datetime.fromisoformat(request["created_at"])
        patient = request["expires_at"] and datetime.fromisoformat(request["expires_at"]) - opened > timedelta(minutes=10)
        if (request["quorum"] == 1 and bool(patient)) is ordinary:
            return
        assert time.monotonic() < end, "the configuration was not read again"


def request_approvals(ops: Human, *items: dict[str, Any]) -> list[dict[str, Any]]:
    """Launch a job that needs approvals, and return its requests."""
    found: list[dict[str, Any]] = ops.until(ops.launch(spec("true", *items)), "awaiting_approval")["requests"]
    return found


def assert_no_credential(auditor: Human, shop: Shop, job: str) -> None:
    assert entry_data(auditor, job, "credential.issued") == []
    assert shop.users_of(job) == []
    assert shop.tokens_of(job) == []


def test_an_approver_who_left_the_group_after_approving_no_longer_counts(
    ops: Human, lead: Human, security: Human, auditor: Human, shop: Shop
) -> None:
    # The first request is approved while the job's second one still waits. Meanwhile its approver leaves the group.
    first, second = request_approvals(ops, WRITE, REFUND)
    job = first["job_id"]
    lead.decide(first)
    assert ops.job(job)["requests"][0]["state"] == "approved"
    with change_group(shop, "support-leads", remove=[lead.id]):
        assert security.answer(second).status_code in ACCEPTED_STATUSES
        seen = ops.until(job)
    assert (seen["state"], seen["credentials"]) == ("denied", [])
    assert re.search(r"valid approvals do not reach the quorum \(.* is in no group that approves", seen["reason"])
    assert_no_credential(auditor, shop, job)
    (rejected,) = entry_data(auditor, job, "approval.rejected")
    assert (rejected["person"], rejected["request"]) == (lead.id, first["id"])
    assert "in no group that approves" in rejected["why"]


def test_half_a_quorum_that_left_no_longer_counts_and_others_can_approve(
    ops: Human, lead: Human, security: Human, chief: Human, auditor: Human, shop: Shop
) -> None:
    with change_tier_one(shop, ops, TWO):
        (request,) = request_approvals(ops, WRITE)
        job = request["job_id"]
        lead.decide(request)
        assert ops.job(job)["requests"][0]["state"] == "pending"
        with change_group(shop, "support-leads", remove=[lead.id]):
            assert security.answer(request).status_code in ACCEPTED_STATUSES
            until(lambda: entry_data(auditor, job, "approval.rejected"), "the lapsed approval is recorded")
            assert ops.job(job)["requests"][0]["state"] == "pending"
            assert_no_credential(auditor, shop, job)
            assert chief.answer(request).status_code in ACCEPTED_STATUSES
            assert ops.until(job)["state"] == "succeeded"
            assert [item["lapsed"] is None for item in ops.job(job)["requests"][0]["approvals"]] == [False, True, True]
    assert {entry["person"] for entry in entry_data(auditor, job, "approval.rejected")} == {lead.id}


def test_two_approvals_of_one_person_count_once(
    ops: Human, lead: Human, security: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    with change_tier_one(shop, ops, TWO):
        (request,) = request_approvals(ops, WRITE)
        job = request["job_id"]
        lead.decide(request)
        for signed in (lead.decision(request), lead.decision(request, reason="again")):
            intruder.send_signal(job, "decide", json_payload(signed))
        until(lambda: len(entry_data(auditor, job, "approval.rejected")) == 2, "both attempts are in the ledger")
        assert ops.job(job)["state"] == "awaiting_approval"
        assert_no_credential(auditor, shop, job)
        assert {entry["why"] for entry in entry_data(auditor, job, "approval.rejected")} == {"this person has answered already"}
        assert security.answer(request).status_code in ACCEPTED_STATUSES
        assert ops.until(job)["state"] == "succeeded"
    assert len(entry_data(auditor, job, "credential.issued")) == 1


def test_an_approval_of_a_lower_tier_does_not_count_after_an_escalation(
    ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    with change_tier_one(shop, ops, QUICK):
        order = ops.order(spec("true", WRITE))
        job = ops.api.post("jobs", json=order).raise_for_status().json()["id"]
        request = ops.until(job, "awaiting_approval")["requests"][0]
        signed = lead.decision(request)
        until(lambda: ops.job(job)["requests"][0]["current_tier"] >= 2, "it has climbed")
    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(job, 1, answer(signed))))
    assert "needs tier 2" in answered["reason"]
    assert_no_credential(auditor, shop, job)
    assert "at tier 2" in entry_data(auditor, job, "approval.rejected")[0]["why"]
    assert "approval.escalated" in {entry["type"] for entry in ledger_entries(auditor, job)}
