"""Activities scheduled by foreign workflows: the ledger and the pages must still tell the truth."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.attacks.intruder import Call, Intruder, answer, change_group, entry_data, ledger_entries
from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

NOW = datetime.now(UTC).isoformat()
WRITE = access(action="write")


def request_approval(ops: Human) -> dict[str, Any]:
    """Launch a job that needs an approval, and return its request."""
    found: dict[str, Any] = ops.until(ops.launch(spec("true", WRITE)), "awaiting_approval")["requests"][0]
    return found


def ladder(request: dict[str, Any], requester: str, **changes: Any) -> dict[str, Any]:
    """Return the state of a request in the form of our workflow."""
    said = {name: request[name] for name in ("digest", "action", "ttl")}
    return {
        "request": request["id"],
        "requester": requester,
        "needed": 1,
        "current": 1,
        "respond_by": request["expires_at"],
        **said,
        **changes,
    }


def answers_call(request: dict[str, Any], climbed: dict[str, Any], *received: dict[str, Any], number: int = 1) -> Call:
    """Return a call of the activity that counts decisions."""
    return Call(
        "take_answers", {"job": request["job_id"], "ladders": {request["id"]: climbed}, "received": list(received), "number": number}
    )


def fact(job: str, kind: str, about: str = "", **data: Any) -> dict[str, Any]:
    """Return an event that a revocation could not record."""
    return {"id": "/".join(part for part in (job, kind, about) if part), "job": job, "type": kind, "at": NOW, "data": data}


def close_call(job: str, *facts: dict[str, Any], state: str = "succeeded") -> Call:
    """Return a call of the activity that closes a job."""
    return Call("close", {"job": job, "state": state, "unrecorded": list(facts)})


def test_a_foreign_workflow_can_count_decide_escalate_withdraw_and_close_nothing(
    ops: Human, lead: Human, auditor: Human, intruder: Intruder
) -> None:
    request = request_approval(ops)
    job, climbed = request["job_id"], ladder(request, ops.id)
    calls = (
        answers_call(request, climbed, lead.decision(request)),
        Call("climb", {"job": job, "ladder": {**climbed, "current": 3}}),
        Call("withdraw", {"job": job, "requests": [request["id"]], "why": "no"}),
        close_call(job),
    )
    answered = intruder.run_workflow("Stranger", f"stranger-{job}", *calls)
    assert [item["failed"] for item in answered] == ["NotTheirs: the caller is not the workflow of this job"] * len(calls)
    assert len(entry_data(auditor, job, "job.refused")) == len(calls)
    seen = auditor.job(job)
    assert (seen["state"], seen["requests"][0]["state"], seen["requests"][0]["approvals"]) == ("awaiting_approval", "pending", [])
    assert lead.answer(request).status_code in ACCEPTED_STATUSES
    assert ops.until(job)["state"] == "succeeded"


@pytest.mark.parametrize(
    "changes",
    [{"requester": "somebody"}, {"current": 0}, {"needed": 0, "current": 0}, {"digest": "sha256:" + "0" * 64}, {"ttl": 3600}],
    ids=",".join,
)
def test_a_decision_about_another_request_than_the_recorded_one_does_not_count(
    ops: Human, lead: Human, auditor: Human, shop: Shop, intruder: Intruder, changes: dict[str, Any]
) -> None:
    request = request_approval(ops)
    signer = ops if "requester" in changes else lead
    signed = signer.decision({**request, **{name: changes[name] for name in changes.keys() & {"digest", "ttl"}}})
    call = answers_call(request, ladder(request, **{"requester": ops.id, **changes}), signed)
    with change_group(shop, "support-leads", add=[ops.id]):
        intruder.run_workflow("Job", request["job_id"], call)
    assert entry_data(auditor, request["job_id"], "approval.decided") == []
    assert len(entry_data(auditor, request["job_id"], "approval.rejected")) == 1
    assert auditor.job(request["job_id"])["requests"][0]["state"] != "approved"


def test_forged_earlier_decisions_do_not_make_a_quorum(ops: Human, chief: Human, auditor: Human, intruder: Intruder) -> None:
    request = request_approval(ops)
    invented = [answer({**chief.decision(request), "signature": "x"}, person=f"p{number}") for number in range(3)]
    intruder.run_workflow(
        "Job", request["job_id"], answers_call(request, ladder(request, ops.id, answers=invented), chief.decision(request))
    )
    assert entry_data(auditor, request["job_id"], "approval.decided") == []


def test_attempts_recorded_in_advance_do_not_hide_later_ones(ops: Human, lead: Human, auditor: Human, intruder: Intruder) -> None:
    request = request_approval(ops)
    first, second = {"statement": {"n": 1}, "signature": "x"}, {"statement": {"n": 2}, "signature": "x"}
    calls = (answers_call(request, ladder(request, ops.id), first), answers_call(request, ladder(request, ops.id), second))
    intruder.run_workflow("Job", request["job_id"], *calls)
    assert len(entry_data(auditor, request["job_id"], "approval.rejected")) == 2


def test_a_false_close_records_neither_approvals_nor_issues_nor_anything_of_another_job(
    ops: Human, lead: Human, auditor: Human, intruder: Intruder
) -> None:
    request, other = request_approval(ops), request_approval(ops)["job_id"]
    job, signed = request["job_id"], lead.decision(request)
    said = {"tier": 1, "decision": "approve", "reason": "x", "ttl": 300, "signed": signed, "verdict": "approved", "granted_ttl": 300}
    less = {"action": "write", "granted_action": "write", "on_behalf_of": None, "on_behalf_of_name": None}
    facts = (
        fact(job, "approval.decided", f"{request['id']}/{lead.id}", request=request["id"], person=lead.id, name="lead", **said, **less),
        fact(job, "credential.renewed", "c", credential="c", expires_at=NOW),
        fact(job, "job.started", worker="w", sandbox="off", run="r"),
        fact(other, "revocation.started", "sweep", by="sweep", why="none"),
        {**fact(job, "revocation.started", "x", by="sweep", why="none"), "id": f"{other}/job.ended"},
        fact(job, "revocation.started", "y", by="sweep"),
    )
    before = len(ledger_entries(auditor, other))
    intruder.run_workflow("Job", job, close_call(job, *facts))
    new = {entry["type"] for entry in ledger_entries(auditor, job)}
    assert new == {"job.submitted", "access.requested", "access.decided", "approval.opened", "job.ended"}
    assert len(ledger_entries(auditor, other)) == before
    assert auditor.job(job)["requests"][0]["state"] == "withdrawn"


def test_a_false_close_cannot_report_an_active_credential_as_revoked(
    ops: Human, auditor: Human, shop: Shop, intruder: Intruder, witness: Witness
) -> None:
    job = ops.launch(spec(f"{witness.hand_over}; sleep 300"))
    login = witness.login()
    handle = auditor.job(job)["credentials"][0]["id"]
    proof = (
        fact(job, "credential.confirmed", handle, credential=handle, how="trust me"),
        fact(job, "revocation.confirmed", "sweep-1", by="sweep", proof={"trust": "me"}),
    )
    intruder.run_workflow("Job", job, close_call(job, *proof))
    until(lambda: auditor.job(job)["revocation"]["state"] == "confirmed", "it is proven")
    assert "trust" not in json.dumps(ledger_entries(auditor, job))
    shop.assert_dead(auditor.job(job), login)


def test_a_foreign_workflow_cannot_report_for_a_session(ops: Human, intruder: Intruder) -> None:
    job = request_approval(ops)["job_id"]
    call = Call("revoke_job", {"job": job, "by": "session", "why": "trust me", "attempts": 1, "settled": True})
    (answered,) = intruder.run_workflow("Stranger", f"stranger-{job}", call)
    assert "confirmed" not in answered


def test_a_foreign_workflows_revocation_is_recorded_as_such_and_needs_a_second_check(
    ops: Human, auditor: Human, intruder: Intruder
) -> None:
    # Use a job that has a session: for a job that never had one, it is known that nothing can be in flight.
    job = ops.launch(spec("sleep 300"))
    ops.until(job, "running")
    call = Call("revoke_job", {"job": job, "by": "guard", "why": "trust me", "attempts": 1})
    (answered,) = intruder.run_workflow("Stranger", f"stranger-{job}", call)
    assert answered["confirmed"] is False
    assert [entry["by"] for entry in entry_data(auditor, job, "revocation.started")] == ["stranger"]


def test_revoking_an_unknown_job_leaves_no_trace(auditor: Human, intruder: Intruder) -> None:
    (answered,) = intruder.run_workflow(
        "Stranger", "stranger-litter", Call("revoke_job", {"job": "not a job", "by": "guard", "why": "x", "attempts": 1})
    )
    assert "confirmed" not in answered
    assert ledger_entries(auditor, "not a job") == []


def test_a_false_workflow_cannot_move_a_request_to_a_lower_tier(ops: Human, auditor: Human, intruder: Intruder) -> None:
    job = ops.launch(spec("true", access("customers-db", "read")))
    request = ops.until(job, "awaiting_approval")["requests"][0]
    call = Call("climb", {"job": job, "ladder": ladder(request, ops.id, needed=2, current=0)})
    intruder.run_workflow("Job", job, call)
    assert auditor.job(job)["requests"][0]["current_tier"] == 2
    assert entry_data(auditor, job, "approval.escalated") == []


def test_a_false_workflow_cannot_expire_a_tier_early(ops: Human, auditor: Human, intruder: Intruder) -> None:
    request = request_approval(ops)
    intruder.run_workflow("Job", request["job_id"], Call("climb", {"job": request["job_id"], "ladder": ladder(request, ops.id)}))
    assert entry_data(auditor, request["job_id"], "approval.escalated") == []
