"""Approvals that narrow, withdraw, break glass or are delegated: tested by what the issued login can do."""

from __future__ import annotations

import json
from typing import Any

import psycopg
import pytest

from tests.support.people import ACCEPTED_STATUSES, Human
from tests.support.shop import Shop, Witness, access, spec
from tests.support.wait import until

pytestmark = pytest.mark.servers

WRITE = access(action="write")
TELLS = "echo got $JUSTENOUGH_ACCESS"


def request_approval(ops: Human, script: str = "true", *items: dict[str, Any]) -> dict[str, Any]:
    """Launch a job whose first request needs approval, and return that request."""
    job = ops.launch(spec(script, *(items or (WRITE,))))
    found: dict[str, Any] = ops.until(job, "awaiting_approval")["requests"][0]
    return found


def request_of(human: Human, request: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = human.api.get(f"requests/{request['id']}").raise_for_status().json()
    return found


def detail(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


def wait_for_log(human: Human, job: str, part: str) -> str:
    """Return a job's log once it contains this text."""

    def log() -> str:
        text = human.output(job)
        return text if part in text else ""

    return until(log, f"its log has {part!r}")


def entry_data(human: Human, job: str, kind: str) -> list[dict[str, Any]]:
    return [entry["data"] for entry in human.ledger(job) if entry["type"] == kind]


def test_a_narrowed_write_can_only_read_and_a_withdrawn_approval_revokes_it_while_the_job_runs(
    ops: Human, lead: Human, shop: Shop, witness: Witness
) -> None:
    request = request_approval(ops, f"{TELLS}; {witness.hand_over}; sleep 300")
    job = request["job_id"]
    answer = lead.answer(request, action="read", ttl=120)
    assert answer.status_code == 200, answer.text
    assert (answer.json()["granted_action"], answer.json()["granted_ttl"]) == ("read", 120)
    login = witness.login()
    with shop.connect(login) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone()
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("UPDATE orders SET status = status")
    (credential,) = ops.job(job)["credentials"]
    assert (credential["action"], credential["request_id"]) == ("read", request["id"])
    (narrowed,) = [one for one in entry_data(ops, job, "access.decided") if one["phase"] == "narrowed"]
    assert (narrowed["outcome"], narrowed["facts"]["action"], narrowed["facts"]["ttl"]) == ("allowed", "read", 120)
    log = wait_for_log(ops, job, "got ")
    (got,) = json.loads(log.partition("got ")[2].splitlines()[0])
    assert (got["action"], got["granted"]["action"], got["granted"]["credential"]) == ("write", "read", credential["id"])

    back = lead.answer(request_of(lead, request), "withdraw", reason="the ticket was a fake")
    assert (back.status_code, back.json()["state"]) == (200, "withdrawn")
    until(lambda: ops.job(job)["credentials"][0]["state"] == "confirmed", "the credential is dead")
    assert not shop.can_log_in(login)
    assert ops.job(job)["state"] == "running"
    (withdrawn,) = entry_data(ops, job, "approval.withdrawn")
    assert (withdrawn["name"], withdrawn["reason"], withdrawn["verdict"]) == ("lead", "the ticket was a fake", "withdrawn")
    assert detail(lead.answer(request, "withdraw")) == (409, "the request is withdrawn and has no approval to withdraw")
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    shop.assert_dead(ops.until(job), login)


def test_withdrawing_an_approval_before_the_job_runs_ends_the_job(ops: Human, lead: Human, security: Human) -> None:
    first, second = access(action="admin", deliver={}), WRITE
    request = request_approval(ops, "true", first, second)
    other = ops.job(request["job_id"])["requests"][1]
    assert security.answer(request, action="write", ttl=200).json()["granted_action"] == "write"
    # The launcher may give up what was approved for them; here the job cannot run without it.
    assert ops.answer(request_of(ops, request), "withdraw").json()["state"] == "withdrawn"
    ended = ops.until(request["job_id"])
    assert (ended["state"], ended["credentials"]) == ("denied", [])
    assert ended["reason"] == "admin on orders-db: its approval was withdrawn"
    assert request_of(ops, other)["state"] == "withdrawn"
    assert detail(lead.answer(other, "withdraw"))[0] == 409


def test_a_narrowing_that_widens_is_refused(ops: Human, lead: Human) -> None:
    request = request_approval(ops)
    action = {"path": "statement.action", "message": "the request is for write; an approval can allow less, never more"}
    ttl = {"path": "statement.ttl", "message": "must be between 1 and 300 seconds: an approval can allow less, never more"}
    for changes, error in (({"action": "admin"}, action), ({"ttl": 301}, ttl)):
        answer = lead.answer(request, **changes)
        assert (answer.status_code, answer.json()["errors"]) == (422, [error])
    # At the first tier an approval needs no reason; whatever else is said does.
    assert lead.answer(request, "deny", reason="").json()["errors"] == [{"path": "statement.reason", "message": "a reason is required"}]
    assert lead.answer(request, reason="").status_code in ACCEPTED_STATUSES
    assert ops.until(request["job_id"])["state"] == "succeeded"


def test_an_approval_needs_a_reason_from_the_second_tier_on(ops: Human, security: Human) -> None:
    request = request_approval(ops, "true", access(action="admin"))
    answer = security.answer(request, reason=" ")
    assert (answer.status_code, answer.json()["errors"]) == (422, [{"path": "statement.reason", "message": "a reason is required"}])
    assert security.answer(request, "deny").status_code in ACCEPTED_STATUSES


def test_break_glass_is_limited_to_few_people_needs_a_reason_and_stays_open_until_another_person_reviews_it(
    ops: Human, lead: Human, security: Human, oncall: Human, auditor: Human, shop: Shop, witness: Witness
) -> None:
    request = request_approval(ops, f"{witness.hand_over}; sleep 300")
    job = request["job_id"]
    assert detail(lead.answer(request, "break_glass")) == (403, "needs one of the groups: break-glass")
    assert oncall.answer(request, "break_glass", reason="").status_code == 422
    assert detail(oncall.answer(request, "approve")) == (403, "needs one of the groups: chiefs, security, support-leads")
    assert oncall.answer(request, "break_glass", reason="the shop is down").json()["state"] == "approved"
    login = witness.login()
    assert shop.can_log_in(login)
    (opened,) = entry_data(auditor, job, "review.opened")
    assert (opened["name"], opened["tiers"], opened["groups"], opened["reason"]) == ("oncall", [1], ["support-leads"], "the shop is down")
    for someone in (lead, auditor, oncall):
        assert job in {one["job_id"] for one in someone.api.get("reviews").raise_for_status().json()["items"]}
    assert ops.api.get("reviews").status_code == 403
    assert detail(oncall.review(request))[0] == 403
    assert lead.review(request, reason="").json()["errors"] == [{"path": "statement.reason", "message": "a reason is required"}]
    assert detail(lead.review(request, person=security.id)) == (
        403,
        "the review is another person's: its statement names a different person than the token",
    )
    forged = lead.api.post(f"requests/{request['id']}/review", json=security.review_body(request, person=lead.id))
    assert detail(forged) == (403, "the review is not valid: the signature does not match the statement")
    assert lead.review(request, "unjustified", reason="it was up").json()["review"]["verdict"] == "unjustified"
    assert detail(security.review(request)) == (409, "lead has already answered this review: unjustified")
    assert job not in {one["job_id"] for one in lead.api.get("reviews").json()["items"]}
    assert job in {one["job_id"] for one in lead.api.get("reviews", params={"all": True}).json()["items"]}
    assert ops.api.post(f"jobs/{job}/kill").status_code == 202
    shop.assert_dead(ops.until(job), login)


def test_policy_can_forbid_break_glass(ops: Human, oncall: Human, security: Human) -> None:
    request = request_approval(ops, "true", access(resource="customers-db"))
    refused = "the decision is not valid: policy denies read for 5m by break-glass (no-breaking-glass-for-restricted)"
    assert detail(oncall.answer(request, "break_glass")) == (403, refused)
    assert security.answer(request).status_code in ACCEPTED_STATUSES
    assert ops.until(request["job_id"])["state"] == "succeeded"


def test_a_delegate_decides_with_their_own_rights_and_no_person_counts_twice(
    ops: Human, lead: Human, security: Human, chief: Human, auditor: Human
) -> None:
    request = request_approval(ops)
    assert detail(security.answer(request, on_behalf_of=lead.id))[1].endswith("has not named the signer as a delegate")
    assert security.delegate(lead.id).json()["errors"][0]["message"].startswith("lead may not decide at your tier 2")
    assert security.delegate(security.id).json()["errors"] == [{"path": "statement.delegate", "message": "is yourself"}]
    forged = lead.api.post("delegations", json=security.delegation(security.id, person=lead.id))
    assert detail(forged) == (403, "the delegation is not valid: the signature does not match the statement")
    named = lead.delegate(lead.api.get("people/security").json()["id"])
    assert named.status_code == 200, named.text
    assert lead.delegate("nobody").json()["errors"] == [
        {"path": "statement.delegate", "message": "is not the id of a person in this installation"}
    ]
    assert lead.api.get("people/auditor").status_code == 404
    answer = security.answer(request, on_behalf_of=lead.id)
    assert answer.status_code == 200, answer.text
    (approval,) = answer.json()["approvals"]
    assert (approval["approver"], approval["on_behalf_of"], approval["tier"]) == ("security", "lead", 2)
    assert ops.until(request["job_id"])["state"] == "succeeded"
    delegation = named.json()["id"]
    assert delegation in {one["id"] for one in auditor.api.get("delegations").json()["items"]}
    assert chief.api.delete(f"delegations/{delegation}").status_code == 403
    assert lead.api.delete(f"delegations/{delegation}").json()["ended_at"]
    assert detail(lead.api.delete(f"delegations/{delegation}")) == (409, "this delegation has already been ended")
    later = request_approval(ops)
    assert detail(security.answer(later, on_behalf_of=lead.id))[0] == 403
    assert lead.answer(later, "deny").status_code in ACCEPTED_STATUSES


def test_a_claim_is_shown_to_the_other_approvers_and_blocks_none_of_them(ops: Human, lead: Human, security: Human) -> None:
    request = request_approval(ops)
    claimed = lead.api.post(f"requests/{request['id']}/claim", json={"seconds": 600})
    assert claimed.json()["claim"]["by"] == "lead"
    status, why = detail(security.api.post(f"requests/{request['id']}/claim"))
    assert (status, why.partition(" until ")[0]) == (409, "claimed by lead")
    assert detail(ops.api.post(f"requests/{request['id']}/claim"))[0] == 403
    assert detail(security.api.delete(f"requests/{request['id']}/claim")) == (409, "you have not claimed this request")
    assert lead.api.delete(f"requests/{request['id']}/claim").json()["claim"] is None
    assert security.api.post(f"requests/{request['id']}/claim").json()["claim"]["by"] == "security"
    lead.decide(request, "deny")
    assert detail(security.api.post(f"requests/{request['id']}/claim")) == (409, "the request is denied, not pending")
