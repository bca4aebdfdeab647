"""What a pending request still needs, what happens if nobody answers, and what can be answered together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.inbox.pending import (
    TimeoutOutcome,
    batch_key_of,
    group_into_batches,
    missing_approvals,
    needs_care,
    shorter_ttls,
    timeout_outcome,
)
from justenough.domain.jobs.states import RequestState
from justenough.domain.readmodel.views import ApprovalView, RequestView

NOW = datetime(2026, 1, 31, tzinfo=UTC)
TIERS = Tiers.model_validate(
    {
        "tiers": {
            1: {"name": "owner", "approvers": ["leads"], "respond_within": "15m"},
            2: {"name": "security", "approvers": ["security"], "respond_within": "1h"},
        }
    }
)


def view(number: int = 1, **changes: Any) -> RequestView:
    known = {"id": f"r-{number}", "job_id": "j", "job_name": "triage", "resource": "orders", "title": "Orders", "action": "write"}
    other = {"ttl": 300, "reason": "because", "optional": False, "sensitivity": "internal", "revocable": "now", "tier": 1, "quorum": 2}
    return RequestView.model_validate(
        {**known, **other, "state": RequestState.PENDING, "current_tier": 1, "created_at": NOW, "expires_at": NOW, **changes}
    )


def approval(person: str, **changes: Any) -> ApprovalView:
    known = {"approver": person, "approver_id": person, "tier": 1, "decision": "approve", "reason": "", "ttl": 300, "at": NOW}
    return ApprovalView.model_validate({**known, **changes})


@pytest.mark.parametrize(
    "tier, expected", [(1, TimeoutOutcome(NOW, 2, ("security",))), (2, TimeoutOutcome(NOW, None)), (3, TimeoutOutcome(NOW, None))]
)
def test_a_timeout_escalates_a_request_and_denies_it_at_the_top_tier(tier: int, expected: TimeoutOutcome) -> None:
    assert timeout_outcome(view(current_tier=tier), TIERS) == expected


@pytest.mark.parametrize("earlier, ends", [(timedelta(minutes=-5), True), (timedelta(), False), (timedelta(minutes=5), False)])
def test_a_job_that_times_out_before_the_deadline_ends_its_request(earlier: timedelta, *, ends: bool) -> None:
    asked = view(current_tier=1, job_times_out_at=NOW + earlier)
    assert asked.decide_by == min(NOW, NOW + earlier)
    assert timeout_outcome(asked, TIERS) == (
        TimeoutOutcome(NOW + earlier, None, ends_with_job=True) if ends else TimeoutOutcome(NOW, 2, ("security",))
    )


@pytest.mark.parametrize(
    "given_, left",
    [
        ([], 2),
        ([approval("a")], 1),
        ([approval("a"), approval("a")], 1),
        ([approval("a"), approval("b")], 1),
        ([approval("a"), approval("b"), approval("c")], 1),
        ([approval("a", withdrawn_at=NOW)], 2),
        ([approval("a", decision="deny")], 2),
        ([approval("a", tier=0)], 2),
    ],
)
def test_distinct_people_whose_approval_counts_are_counted(given_: list[ApprovalView], left: int) -> None:
    assert missing_approvals(view(approvals=tuple(given_))) == left


@pytest.mark.parametrize(
    "decision, tier, care",
    [
        ("approve", 1, False),
        ("approve", 2, False),
        ("approve", 3, True),
        ("break_glass", 1, True),
        ("break_glass", 3, True),
        ("deny", 3, False),
        ("withdraw", 3, False),
    ],
)
def test_a_decision_needs_care_if_it_gives_access_at_a_high_tier_or_breaks_glass(decision: str, tier: int, *, care: bool) -> None:
    assert needs_care(decision, tier) is care


VIEWS = st.lists(
    st.builds(
        lambda name, resource, action, tier: {"job_name": name, "resource": resource, "action": action, "current_tier": tier},
        st.sampled_from("ab"),
        st.sampled_from("xy"),
        st.sampled_from(["read", "write"]),
        st.integers(1, 3),
    ),
    max_size=12,
)


@given(VIEWS)
def test_batches_group_requests_by_kind_and_never_include_several_of_tier_three(kinds: list[dict[str, Any]]) -> None:
    views = [view(number, **kind) for number, kind in enumerate(kinds)]
    found = group_into_batches(views, lambda one: one)
    assert sorted(one.id for batch in found for one in batch.requests) == sorted(one.id for one in views)
    assert all(batch_key_of(one) == batch.kind for batch in found for one in batch.requests)
    assert len({batch.kind for batch in found}) == len(found)
    firsts = [views.index(batch.requests[0]) for batch in found]
    assert firsts == sorted(firsts)
    assert not any(batch.together for batch in found if batch.kind.tier >= 3 or len(batch.requests) < 2)


@given(st.integers(1, 100_000))
def test_every_offered_shorter_ttl_is_shorter_than_the_requested_one(ttl: int) -> None:
    assert all(0 < seconds < ttl for seconds in shorter_ttls(ttl))
