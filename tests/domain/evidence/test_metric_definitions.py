"""Each line of the evidence report: its figures by what was recorded, its status by its rule, as a table."""

from __future__ import annotations

from typing import Any

import pytest

from justenough.domain.evidence.metric_definitions import METRICS
from justenough.domain.ledger.events import EventType, build_event
from tests.adapters.store.event_samples import (
    JOB,
    NOW,
    answered,
    changed_to,
    confirmed,
    credential,
    decided,
    ended,
    issued,
    job_id,
    later,
    opened,
    overdue,
    part,
    proved,
    refused,
    requested,
    revoking,
    started,
    submitted,
)
from tests.support.evidence_samples import expired, gave_up, line, named, rejected, reported, review, verdict, withdrawn

ASKED = [requested(), decided("needs_approval", tier=1), opened()]
THROUGH = [changed_to(requested(), tools={"a": {"arguments": {}}}), *ASKED[1:]]

CASES: dict[str, tuple[list[Any], str, dict[str, Any], str]] = {
    "a life is from issue to the moment it was seen dead": (
        [issued(), confirmed(at=later(90))],
        "lifetimes.real",
        {"measured": 1, "granted_p50_seconds": 600.0, "real_max_seconds": 90.0, "beyond_their_end": 0},
        "ok",
    ),
    "a renewed credential was granted until its last end": (
        [issued(), credential(EventType.CREDENTIAL_RENEWED, at=later(500), expires_at=later(1200)), confirmed(at=later(1230))],
        "lifetimes.real",
        {"granted_max_seconds": 1200.0, "real_max_seconds": 1230.0, "beyond_their_end": 0},
        "ok",
    ),
    "a credential seen dead more than a minute after its end outlived it": (
        [issued(), confirmed(at=later(661))],
        "lifetimes.real",
        {"beyond_their_end": 1},
        "attention",
    ),
    "what was issued before the period has no life in it": (
        [confirmed()],
        "lifetimes.real",
        {"measured": 0, "real_p50_seconds": None},
        "ok",
    ),
    "a revocation lasts from the first attempt to the proof": (
        [revoking(at=later(1)), revoking(at=later(4), about="guard"), proved(at=later(9))],
        "revocation.time",
        {"measured": 1, "p50_seconds": 8.0, "open_at_the_end": 0},
        "ok",
    ),
    "a proof that the clocks put before the attempt took nothing": (
        [revoking(at=later(1)), proved(at=later(0.5))],
        "revocation.time",
        {"max_seconds": 0.0},
        "ok",
    ),
    "slow revocations want attention": ([revoking(), proved(at=later(61))], "revocation.time", {"p95_seconds": 61.0}, "attention"),
    "an overdue revocation is told with how long it took": (
        [revoking(), overdue(at=later(20)), overdue(at=later(40), attempt=2), proved(at=later(100))],
        "revocation.overdue",
        {"jobs": 1, "longest_seconds": 100.0},
        "attention",
    ),
    "a revocation that is overdue still lasts to the period's end": (
        [revoking(), overdue(at=later(20))],
        "revocation.overdue",
        {"jobs": 1, "longest_seconds": 86400.0},
        "attention",
    ),
    "what could be revoked and ended unseen wants attention": (
        [issued(), expired()],
        "revocation.expired",
        {"expired_unconfirmed": 1, "revocable_now": 1, "issued_before_the_period": 0},
        "attention",
    ),
    "what only time ends, ended as it was to": (
        [issued(revocable="on_expiry"), expired()],
        "revocation.expired",
        {"expired_unconfirmed": 1, "revocable_on_expiry": 1},
        "ok",
    ),
    "what cannot be revoked is counted when it is issued": (
        [issued(), issued(number=2, revocable="never")],
        "revocation.never",
        {"issued": 2, "never_revocable": 1},
        "attention",
    ),
    "an approval is its tier's": (
        [*ASKED, opened(tier=2, at=later(900), escalated=True), answered("approved", at=later(950))],
        "approvals.outcomes",
        {"opened": 1, "escalated": 1, "approved": 1, "denied": 0, "expired": 0},
        "ok",
    ),
    "an approval that nobody gave wants attention": ([*ASKED, gave_up(900)], "approvals.outcomes", {"expired": 1}, "attention"),
    "answers that settle nothing are counted by person": (
        [*ASKED, answered("pending", person="chief"), answered("denied", person="lead", decision="deny")],
        "approvals.people",
        {"answers": 2, "people": 2},
        "ok",
    ),
    "latency is from opening to settlement, however it climbs": (
        [*ASKED, opened(tier=2, at=later(900), escalated=True), answered("approved", at=later(1000))],
        "approvals.latency",
        {"measured": 1, "p95_seconds": 1000.0},
        "ok",
    ),
    "a request opened before the period has no latency": ([answered("approved")], "approvals.latency", {"measured": 0}, "ok"),
    "a job that waits for two answers waits once": (
        [
            *ASKED,
            requested(number=2),
            opened(number=2, at=later(1800)),
            answered("approved", at=later(3600)),
            answered("approved", number=2, at=later(7200)),
        ],
        "approvals.waiting",
        {"job_hours": 2.0, "waits": 1, "waiting_at_the_end": 0},
        "ok",
    ),
    "a job that ends waits no longer": (
        [*ASKED, ended(at=later(1800))],
        "approvals.waiting",
        {"job_hours": 0.5, "waiting_at_the_end": 0},
        "ok",
    ),
    "a request that is withdrawn waits no longer": ([*ASKED, withdrawn(900)], "approvals.waiting", {"job_hours": 0.25}, "ok"),
    "who still waits has waited until the period's end": (ASKED, "approvals.waiting", {"job_hours": 24.0, "waiting_at_the_end": 1}, "ok"),
    "less time than was asked for is narrower": (
        [*ASKED, answered("approved")],
        "approvals.narrowed",
        {"narrowed": 1, "by_ttl": 1, "by_action": 0},
        "ok",
    ),
    "a lesser action is narrower": (
        [*ASKED, changed_to(answered("approved"), granted_ttl=600, granted_action="read")],
        "approvals.narrowed",
        {"narrowed": 1, "by_ttl": 0, "by_action": 1},
        "ok",
    ),
    "fewer calls of tools are narrower": (
        [
            *THROUGH,
            changed_to(answered("approved"), granted_ttl=600, granted_action="write", granted_tools={"a": {"calls": 1, "arguments": {}}}),
        ],
        "approvals.narrowed",
        {"narrowed": 1, "by_ttl": 0, "by_action": 0, "by_tools": 1},
        "ok",
    ),
    "all calls that were asked for are not narrower": (
        [*THROUGH, changed_to(answered("approved"), granted_ttl=600, granted_action="write", granted_tools={"a": {"arguments": {}}})],
        "approvals.narrowed",
        {"narrowed": 0},
        "ok",
    ),
    "all that was asked for is not narrower": (
        [*ASKED, changed_to(answered("approved"), granted_ttl=600, granted_action="write")],
        "approvals.narrowed",
        {"narrowed": 0},
        "ok",
    ),
    "an approval taken back is counted": (
        [named("approval.withdrawn", request=part(JOB, "r"), person="e", name="lead", reason="no", signed={}, verdict="pending")],
        "approvals.withdrawn",
        {"withdrawn": 1},
        "ok",
    ),
    "an attempt on one's own job is both": (
        [rejected("Forbidden: no one answers for a job that they launched"), rejected("something new", 2)],
        "attempts.own",
        {"attempts": 1},
        "attention",
    ),
    "answers that do not count are counted": ([rejected("a"), rejected("b", 2)], "attempts.rejected", {"rejected": 2}, "attention"),
    "an order that does not hold is counted": ([refused("the order has expired")], "attempts.orders", {"attempts": 1}, "attention"),
    "the share that policy allows is of what was decided first": (
        [
            decided("allowed"),
            decided("denied", number=2),
            decided("needs_approval", number=3),
            decided("allowed", number=4, phase="runtime"),
            decided("allowed", phase="issue"),
            decided("allowed", phase="renewal"),
        ],
        "policy.automatic",
        {"decided": 4, "allowed": 2, "needs_approval": 1, "denied": 1, "auto_approved_share": 0.5},
        "ok",
    ),
    "nothing decided has no share": ([], "policy.automatic", {"decided": 0, "auto_approved_share": None}, "ok"),
    "denials are counted in any phase": ([decided("denied"), decided("denied", phase="issue")], "policy.denied", {"denied": 2}, "ok"),
    "a policy that errs wants attention": (
        [changed_to(decided("denied"), errors=["x"])],
        "policy.errors",
        {"decisions_with_errors": 1},
        "attention",
    ),
    "emergencies and verdicts are counted": (
        [review(), verdict("justified")],
        "emergency.reviews",
        {"opened": 1, "justified": 1, "unjustified": 0},
        "ok",
    ),
    "an unjustified emergency wants attention": ([review(), verdict("unjustified")], "emergency.reviews", {"unjustified": 1}, "attention"),
    "a second lock is counted": ([named("lock.opened", request="r")], "emergency.locks", {"double_locked_issues": 1}, "ok"),
    "a grant under which nothing was issued is told once its job has ended": (
        [*ASKED, answered("approved"), decided("allowed", number=2), issued(number=2), ended()],
        "use.unissued",
        {"granted": 2, "never_issued": 1},
        "ok",
    ),
    "a grant of a job that goes on may still be fetched": ([decided("allowed")], "use.unissued", {"granted": 1, "never_issued": 0}, "ok"),
    "a grant that policy took back at issue was not left over": (
        [decided("allowed"), decided("denied", phase="issue"), ended()],
        "use.unissued",
        {"granted": 1, "never_issued": 0},
        "ok",
    ),
    "a grant whose approval was taken back was not left over": (
        [*ASKED, answered("approved"), named("approval.withdrawn", request=part(JOB, "r"), verdict="withdrawn"), ended()],
        "use.unissued",
        {"granted": 1, "never_issued": 0},
        "ok",
    ),
    "a narrower decision takes no grant back": (
        [decided("allowed"), decided("denied", phase="narrowed"), ended()],
        "use.unissued",
        {"granted": 1, "never_issued": 1},
        "ok",
    ),
    "an answer for somebody away is its giver's": (
        [changed_to(answered("pending"), on_behalf_of="e-chief"), answered("pending", person="chief")],
        "approvals.people",
        {"answers": 2, "people": 2, "for_somebody_away": 1},
        "ok",
    ),
    "disuse is not observable": (
        [issued(), confirmed(), ended()],
        "use.unused",
        {"uses_observed": "not observable", "issued_without_use": "not observable"},
        "ok",
    ),
    "an observed use is told": (
        [credential(EventType.CREDENTIAL_USED, what="a tool call")],
        "use.unused",
        {"uses_observed": 1, "issued_without_use": "not observable"},
        "ok",
    ),
    "a run without a sandbox wants attention": (
        [started(), changed_to(started(job_id(2)), sandbox="off")],
        "machinery.sandbox_off",
        {"runs": 2, "sandbox_off": 1},
        "attention",
    ),
    "what belongs to no known job wants attention": (
        [build_event(EventType.SWEEP_REPORTED, "-", at=NOW, about="j-dev-x", unknown=["j-dev-x"])],
        "machinery.sweep",
        {"of_no_known_job": 1},
        "attention",
    ),
    "a checkpoint is told": (
        [build_event(EventType.LEDGER_CHECKPOINTED, "-", at=NOW, entries=7, root="ab")],
        "ledger.checkpoint",
        {"last_checkpoint": NOW.isoformat()},
        "ok",
    ),
    "without a checkpoint the ledger's end is not held": ([submitted()], "ledger.checkpoint", {"last_checkpoint": "none"}, "attention"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_figure_and_its_status(name: str) -> None:
    facts, key, figures, status = CASES[name]
    found = line(reported(*facts), key)
    assert {figure: found.figures[figure] for figure in figures} == figures
    assert found.status == status


def test_every_line_has_a_case_or_is_about_now() -> None:
    assert set(METRICS) - {key for _, key, _, _ in CASES.values()} == {
        *(key for key in METRICS if key.startswith("standing.")),
        "revocation.overdue_now",
        "emergency.open",
        "ledger.entries",
        "ledger.verified",
    }
