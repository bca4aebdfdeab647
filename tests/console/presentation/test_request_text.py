"""A request in words: the access, missing approvals, the signed statement."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from console.presentation import request_text
from console.presentation.request_text import NO_LIMITS, Limits
from justenough.domain.jobs.states import RequestState, Revocable
from justenough.domain.readmodel.views import ApprovalView, RequestView

NOW = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)


def view(**changes: Any) -> RequestView:
    known = {"id": "r-1", "job_id": "j-1", "job_name": "refund-triage", "requester": "ops", "resource": "refunds-db", "title": "Refunds"}
    other = {
        "action": "write",
        "ttl": 300,
        "reason": "because",
        "optional": False,
        "sensitivity": "internal",
        "revocable": "now",
        "tier": 1,
    }
    return RequestView.model_validate(
        {**known, **other, "quorum": 1, "state": RequestState.PENDING, "current_tier": 1, "created_at": NOW, **changes}
    )


def approval(person: str, **changes: Any) -> ApprovalView:
    known = {"approver": person, "approver_id": person, "tier": 3, "decision": "approve", "reason": "", "ttl": 300, "at": NOW}
    return ApprovalView.model_validate({**known, **changes})


@pytest.mark.parametrize(
    "changes, said",
    [
        ({}, "write on Refunds for 5 min"),
        ({"ttl": 90}, "write on Refunds for 1 min 30 s"),
        ({"call": {"tool": "refund-order", "arguments": {}}}, "write on Refunds for one call of refund-order"),
        ({"tools": {"refund-order": {}, "find-order": {}}}, "write on Refunds through refund-order, find-order for 5 min"),
    ],
)
def test_the_access_of_a_request_is_one_phrase(changes: dict[str, Any], said: str) -> None:
    assert request_text.text_of(request_text.access_pieces(view(**changes))) == said


def test_words_with_digits_are_emphasised() -> None:
    pieces = request_text.amount_pieces("Pay 449.50 EUR out for order 100063")
    assert [piece.text for piece in pieces if piece.strong] == ["449.50", "100063"]
    assert request_text.text_of(pieces) == "Pay 449.50 EUR out for order 100063"
    assert [request_text.has_amount(text) for text in ("12", "order 7", "none", "")] == [True, True, False, False]


@pytest.mark.parametrize(
    "quorum, given, said",
    [
        (1, (), "needs 1 approval"),
        (2, (), "needs 2 approvals by different people"),
        (2, (approval("chief"),), "chief approved; needs 1 more approval"),
        (2, (approval("chief", on_behalf_of="boss"),), "chief (for boss) approved; needs 1 more approval"),
        (1, (approval("chief", withdrawn_at=NOW),), "needs 1 approval"),
        (2, (approval("chief"), approval("lead", lapsed="lead has left")), "chief approved; needs 1 more approval"),
    ],
)
def test_missing_approvals_are_named(quorum: int, given: tuple[ApprovalView, ...], said: str) -> None:
    assert request_text.still_needed(view(quorum=quorum, approvals=given)) == said


def test_an_approval_that_no_longer_counts_is_named_with_the_reason() -> None:
    given = (
        approval("lead", tier=1),
        approval("chief", lapsed="chief has left"),
        approval("second"),
        approval("lead", tier=1, decision="deny"),
    )
    escalated = view(current_tier=2, approvals=given)
    said = ["does not count at this tier", "no longer counts: chief has left", "", ""]
    assert [request_text.why_not_counted(escalated, item) for item in given] == said


def test_the_signing_sentence_matches_the_statement() -> None:
    def said(decision: str, limits: Limits = NO_LIMITS, **changes: Any) -> str:
        return request_text.text_of(request_text.signing_pieces(view(**changes), decision, "lead", limits))

    assert said("approve") == "lead approves write on Refunds for 5 min for the job j-1 (refund-triage)."
    less = said("approve", Limits(ttl="1 min", action="read", absent="boss"))
    assert less == "lead for boss approves read on Refunds for 1 min for the job j-1 (refund-triage)."
    tools = said("approve", Limits(tools="refund-order:calls=2\nfind-order"), tools={"refund-order": {}, "find-order": {}})
    assert "write on Refunds only through refund-order:calls=2, find-order for 5 min" in tools
    assert said("break_glass").startswith("lead uses BREAK-GLASS for")
    call = {"tool": "refund-order", "arguments": {"order_id": 7, "amount": 44.95}}
    called = 'lead approves write on Refunds, once, by the call refund-order with {"order_id": 7, "amount": 44.95}, for 5 min for the job'
    assert said("approve", call=call).startswith(called)
    assert "… (all are above), for 5 min" in said("approve", call={"tool": "t", "arguments": {"text": "x" * 500}})


def test_the_parts_of_the_signing_sentence_that_a_form_changes_carry_the_requested_value() -> None:
    pieces = request_text.signing_pieces(view(), "approve", "lead", Limits(ttl="1 min", action="read"))
    assert {piece.limit: piece.requested for piece in pieces if piece.limit} == {
        "absent": "",
        "action": "write",
        "tools": "",
        "ttl": "5 min",
    }


def test_approvers_of_tool_calls_read_that_the_job_never_gets_their_credential() -> None:
    assert request_text.revocation_text(view(revocable="never")).endswith("it stays valid until its owner changes it.")
    parts: tuple[dict[str, Any], ...] = ({"tools": {"refund-order": {}}}, {"call": {"tool": "refund-order", "arguments": {}}})
    for part in parts:
        assert request_text.revocation_text(view(revocable="never", **part)).endswith("The job never gets it: only the worker uses it.")


def test_every_revocability_has_a_text() -> None:
    assert set(request_text.REVOCABLE_TEXT) == {kind.value for kind in Revocable}


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"state": RequestState.APPROVED, "current_tier": 2, "approvals": [approval("lead", tier=1), approval("chief")]}, "chief"),
        ({"state": RequestState.DENIED, "approvals": [approval("lead"), approval("chief", decision="deny")]}, "chief"),
        ({"state": RequestState.WITHDRAWN, "approvals": [approval("lead", withdrawn_at=NOW)]}, "lead"),
        ({"state": RequestState.EXPIRED, "approvals": [approval("lead"), approval("chief")]}, "nobody"),
    ],
)
def test_only_those_whose_answers_decided_a_request_are_named(changes: dict[str, Any], said: str) -> None:
    assert request_text.decided_by_text(view(**changes)) == said
