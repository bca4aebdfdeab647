"""A request in words: the sentence, the effect of a timeout, missing approvals, the signed statement."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from console.presentation import request_text
from justenough.domain.inbox.pending import TimeoutOutcome
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


def test_the_sentence_says_who_requests_what_for_how_long() -> None:
    pieces = request_text.request_sentence(view(), "refund-agent 1.4")
    assert request_text.text_of(pieces) == "refund-triage by agent refund-agent 1.4, launched by ops, requests WRITE on Refunds for 5 min"
    assert [piece.text for piece in pieces if piece.strong] == ["refund-triage", "WRITE", "Refunds"]
    assert (
        request_text.text_of(request_text.request_sentence(view(ttl=90)))
        == "refund-triage, launched by ops, requests WRITE on Refunds for 1 min 30 s"
    )


@pytest.mark.parametrize(
    "what, said",
    [
        (
            TimeoutOutcome(NOW, 2, ("security", "chiefs")),
            "Escalates to tier 2 (security, chiefs) at 2026-01-31 09:30:00 UTC. Never auto-approved.",
        ),
        (TimeoutOutcome(NOW, None), "Denied at 2026-01-31 09:30:00 UTC if nobody decides."),
        (
            TimeoutOutcome(NOW, None, ends_with_job=True),
            "The job times out at 2026-01-31 09:30:00 UTC, before this tier's deadline; the request ends with it.",
        ),
        (TimeoutOutcome(None, 2), "No deadline."),
    ],
)
def test_silence_is_never_an_approval(what: TimeoutOutcome, said: str) -> None:
    assert said in request_text.silence_text(what)


@pytest.mark.parametrize(
    "quorum, given, said",
    [
        (1, (), "needs 1 approval"),
        (2, (), "needs 2 approvals by different people"),
        (2, (approval("chief"),), "chief approved; needs 1 more approval"),
        (2, (approval("chief", on_behalf_of="boss"),), "chief (for boss) approved; needs 1 more approval"),
        (1, (approval("chief", withdrawn_at=NOW),), "needs 1 approval"),
    ],
)
def test_missing_approvals_are_named(quorum: int, given: tuple[ApprovalView, ...], said: str) -> None:
    assert request_text.still_needed(view(quorum=quorum, approvals=given)) == said


def test_the_signing_sentence_matches_the_statement() -> None:
    assert (
        request_text.signing_sentence(view(), "approve", "lead")
        == "lead approves WRITE on Refunds for 5 min for the job j-1 (refund-triage)."
    )
    less = request_text.signing_sentence(view(), "approve", "lead", ttl=60, action="read", absent="boss")
    assert less == "lead for boss approves READ on Refunds for 1 min for the job j-1 (refund-triage)."
    assert request_text.signing_sentence(view(), "break_glass", "lead").startswith("lead uses BREAK-GLASS for")


def test_every_revocability_has_a_text() -> None:
    assert set(request_text.REVOCABLE_TEXT) == {kind.value for kind in Revocable}
