"""Rows changed directly in the store: nothing is issued for them, and the signed order runs unchanged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.attacks.intruder import Intruder, change_group, deny_job, entry_data, grant, job_input, json_payload, session_call
from tests.support.people import Human
from tests.support.shop import Shop, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

WRITE = access(action="write", deliver={})


def request_approval(ops: Human, script: str = "true") -> dict[str, Any]:
    """Launch a job that needs an approval, and return its request."""
    found: dict[str, Any] = ops.until(ops.launch(spec(script, WRITE)), "awaiting_approval")["requests"][0]
    return found


def test_a_request_set_to_approved_in_the_store_is_not_issued(ops: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    request = request_approval(ops)
    job = request["job_id"]
    approval = (
        (
            "INSERT INTO approvals (id, request_id, approver, approver_id, tier, decision, reason, ttl, at)"
            " VALUES (?, ?, 'lead', 'x', 3, 'approve', 'x', 300, '2026-01-01 00:00:00.000000')"
        ),
        "x" + job,
        request["id"],
    )
    assert (
        intruder.write_store("UPDATE requests SET state = 'approved', granted_ttl = 300, tier = 0, current_tier = 0 WHERE job_id = ?", job)
        == 1
    )
    assert intruder.write_store(*approval) == 1
    assert intruder.write_store("UPDATE jobs SET state = 'running' WHERE id = ?", job) == 1
    # Whatever asks for the job now, a false worker too, meets a session that looks for signatures.
    (answered,) = intruder.run_workflow("Job", job, session_call(job_input_of(auditor, job), grant(job, 1)))
    assert answered["outcome"] == "denied"
    assert "do not reach the quorum" in answered["reason"]
    assert entry_data(auditor, job, "credential.issued") == []
    assert [entry["outcome"] for entry in entry_data(auditor, job, "access.decided")] == ["needs_approval", "needs_approval"]
    assert shop.users_of(job) == []
    assert shop.tokens_of(job) == []


def job_input_of(auditor: Human, job: str) -> dict[str, Any]:
    """Return a job's order from its first ledger entry, in the form of the API."""
    (data,) = entry_data(auditor, job, "job.submitted")
    return {"id": job, "spec": data["spec"], "params": data["params"], "bundle": data["bundle"], **data["order"]}


def test_a_job_whose_rows_were_changed_runs_as_it_was_signed(ops: Human, lead: Human, intruder: Intruder) -> None:
    request = request_approval(ops, "echo as signed")
    job = request["job_id"]
    forged = json.dumps(spec("echo as forged", WRITE))
    assert intruder.write_store("UPDATE orders SET spec = ? WHERE job = ?", forged, job) == 1
    assert (
        intruder.write_store(
            "UPDATE jobs SET task = 'harmless', data_scope = '{\"tenant\": \"globex\"}', requester_id = 'x' WHERE id = ?", job
        )
        == 1
    )
    told = lead.answer(request)
    assert (told.status_code, "the order is for another spec" in told.text) == (403, True), told.text
    # If the approval bypasses the console, the job runs as it was signed.
    intruder.send_signal(job, "decide", json_payload(lead.decision(request)))
    seen = lead.until(job)
    assert seen["state"] == "succeeded"
    assert lead.output(job) == "as signed\n"
    assert "acme" in seen["credentials"][0]["lease_id"]


def test_an_order_changed_in_the_store_does_not_start(ops: Human, auditor: Human, shop: Shop, intruder: Intruder) -> None:
    # Do what the console's reconciler would do with such a row: start the job as recorded.
    order = ops.order(spec("true", WRITE))
    intruder.start_job(job_input(order, spec=spec("cat /etc/passwd", access())))
    assert [entry["why"] for entry in entry_data(auditor, order["id"], "job.refused")] == ["the order is for another spec"]
    assert entry_data(auditor, order["id"], "credential.issued") == []
    assert shop.users_of(order["id"]) == []


def test_a_launcher_whose_identity_is_hidden_in_the_store_still_cannot_approve(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    request = request_approval(ops)
    job = request["job_id"]
    intruder.write_store("UPDATE requests SET requester_id = 'x' WHERE job_id = ?", job)
    intruder.write_store("UPDATE jobs SET requester_id = 'x', requester = 'x' WHERE id = ?", job)
    with change_group(shop, "support-leads", add=[ops.id]):
        # Send the decision as a console would that believes the store.
        intruder.send_signal(job, "decide", json_payload(ops.decision(request)))
        until(lambda: entry_data(auditor, job, "approval.rejected"), "the attempt is in the ledger")
    assert auditor.job(job)["requests"][0]["state"] == "pending"
    assert "that they launched" in entry_data(auditor, job, "approval.rejected")[0]["why"]
    assert entry_data(auditor, job, "credential.issued") == []


def test_a_denial_deleted_from_the_store_still_counts(
    ops: Human, lead: Human, security: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    order, request, too_late = deny_job(ops, lead, security)
    job = order["id"]
    intruder.write_store("UPDATE requests SET state = 'approved' WHERE job_id = ?", job)
    intruder.write_store("UPDATE jobs SET state = 'awaiting_approval', ended_at = NULL WHERE id = ?", job)
    intruder.write_store("DELETE FROM approvals WHERE request_id = ?", request["id"])
    intruder.write_store("DELETE FROM claims WHERE job = ?", job)
    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(job, 1, too_late)))
    assert "already run or ended" in answered["reason"]
    assert entry_data(auditor, job, "credential.issued") == []
    assert entry_data(auditor, job, "job.refused")
    assert shop.users_of(job) == []


def test_a_parents_order_widened_in_the_store_gives_its_children_nothing(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder
) -> None:
    parent = ops.launch(spec("true", access()))
    wider = json.dumps(spec("true", access(), WRITE))
    assert intruder.write_store("UPDATE orders SET spec = ? WHERE job = ?", wider, parent) == 1
    order = ops.order(spec("true", WRITE), parent=parent)
    job = order["id"]
    (answered,) = intruder.run_workflow("Job", job, session_call(order, grant(job, 1)))
    assert (answered["outcome"], f"the stored order of {parent} differs from the signed order" in answered["reason"]) == ("failed", True)
    assert entry_data(auditor, job, "credential.issued") == []
    assert (shop.users_of(job), shop.tokens_of(job)) == ([], [])
