"""Which answers to a request count in its current state."""

from __future__ import annotations

from datetime import timedelta

from justenough.domain.jobs.states import RequestState
from justenough.domain.readmodel.views import ApprovalView, RequestView
from tests.support.domain_samples import NOW


def approval(name: str, tier: int, decision: str = "approve", *, taken_back: bool = False) -> ApprovalView:
    back = NOW + timedelta(seconds=2) if taken_back else None
    at = NOW + timedelta(seconds=1) if decision == "deny" else NOW
    return ApprovalView(
        approver=name, approver_id=name, tier=tier, decision=decision, reason="", ttl=60, action="write", at=at, withdrawn_at=back
    )


def test_withdrawn_approvals_and_those_below_the_current_tier_no_longer_count() -> None:
    given = (
        approval("lead", 1),
        approval("security", 2),
        approval("chief", 3),
        approval("chief2", 3, taken_back=True),
        approval("guard", 2, "deny"),
        approval("oncall", 0, "break_glass"),
    )
    asked = {"id": "r", "job_id": "j", "resource": "orders-db", "title": "Orders", "action": "write", "ttl": 60, "reason": "", "tier": 1}
    shown = {"optional": False, "sensitivity": "internal", "revocable": "now", "created_at": NOW, "state": RequestState.PENDING}
    view = RequestView.model_validate({**asked, **shown, "current_tier": 2, "approvals": given})
    assert [item.approver for item in view.counting_approvals] == ["security", "chief", "oncall"]
    ends = NOW + timedelta(minutes=5)
    decided = {state: view.model_copy(update={"state": state, "expires_at": ends}).decided_at for state in RequestState}
    moments = {
        RequestState.APPROVED: NOW,
        RequestState.DENIED: NOW + timedelta(seconds=1),
        RequestState.WITHDRAWN: NOW + timedelta(seconds=2),
        RequestState.EXPIRED: ends,
    }
    assert decided == {**dict.fromkeys(RequestState), **moments}
