"""Each line of the evidence report, as a table: records, figures, status."""

from __future__ import annotations

from typing import Any

import pytest

from justenough.domain.evidence.metric_definitions import METRICS
from justenough.domain.ledger.events import Event, EventType, build_event
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, job_id, later, part_id
from tests.support.evidence_samples import approval_expiry, expiry, line, raw_entry, rejection, report_of, review, review_answer, withdrawal

ASKED = [samples.access_request(), samples.access_decision("needs_approval", tier=1), samples.approval_opening()]
ESCALATED_AND_APPROVED = samples.approval_opening(
    tier=2, at=later(900), escalated=True, verdict="approved", granted_ttl=300, granted_action="write"
)
THROUGH = [samples.access_request(tools={"a": {"arguments": {}}}), *ASKED[1:]]


def overdue_credential(seconds: float, *, attempt: int = 1) -> Event:
    about, failures = f"{part_id(JOB, 'c')}/{attempt}", ["its lease is still alive"]
    return build_event(
        EventType.CREDENTIAL_OVERDUE,
        JOB,
        at=later(seconds),
        about=about,
        credential=part_id(JOB, "c"),
        by="person",
        failures=failures,
        attempt=attempt,
    )


CASES: dict[str, tuple[list[Any], str, dict[str, Any], str]] = {
    "a life is from issue to the moment it was seen dead": (
        [samples.issuance(), samples.credential_confirmation(at=later(90))],
        "lifetimes.real",
        {"measured": 1, "granted_p50_seconds": 600.0, "real_max_seconds": 90.0, "beyond_their_end": 0},
        "ok",
    ),
    "a life ends when it was seen dead, even if that was recorded later": (
        [samples.issuance(), samples.credential_confirmation(at=later(661), done_at=later(90))],
        "lifetimes.real",
        {"real_max_seconds": 90.0, "beyond_their_end": 0},
        "ok",
    ),
    "a renewed credential was granted until its last end": (
        [
            samples.issuance(),
            samples.credential_event(EventType.CREDENTIAL_RENEWED, at=later(500), expires_at=later(1200)),
            samples.credential_confirmation(at=later(1230)),
        ],
        "lifetimes.real",
        {"granted_max_seconds": 1200.0, "real_max_seconds": 1230.0, "beyond_their_end": 0},
        "ok",
    ),
    "a credential seen dead more than a minute after its end outlived it": (
        [samples.issuance(), samples.credential_confirmation(at=later(661))],
        "lifetimes.real",
        {"beyond_their_end": 1},
        "attention",
    ),
    "what was issued before the period has no life in it": (
        [samples.credential_confirmation()],
        "lifetimes.real",
        {"measured": 0, "real_p50_seconds": None},
        "ok",
    ),
    "a revocation lasts from the first attempt to the proof": (
        [
            samples.revocation_start(at=later(1)),
            samples.revocation_start(at=later(4), about="guard"),
            samples.revocation_proof(at=later(9)),
        ],
        "revocation.time",
        {"measured": 1, "p50_seconds": 8.0, "open_at_the_end": 0},
        "ok",
    ),
    "a proof that the clocks put before the attempt took nothing": (
        [samples.revocation_start(at=later(1)), samples.revocation_proof(at=later(0.5))],
        "revocation.time",
        {"max_seconds": 0.0},
        "ok",
    ),
    "slow revocations want attention": (
        [samples.revocation_start(), samples.revocation_proof(at=later(61))],
        "revocation.time",
        {"p95_seconds": 61.0},
        "attention",
    ),
    "an overdue revocation is told with how long it took": (
        [
            samples.revocation_start(),
            samples.overdue_revocation(at=later(20)),
            samples.overdue_revocation(at=later(40), attempt=2),
            samples.revocation_proof(at=later(100)),
        ],
        "revocation.overdue",
        {"jobs": 1, "longest_seconds": 100.0},
        "attention",
    ),
    "a revocation that is overdue still lasts to the period's end": (
        [samples.revocation_start(), samples.overdue_revocation(at=later(20))],
        "revocation.overdue",
        {"jobs": 1, "longest_seconds": 86400.0},
        "attention",
    ),
    "a credential that is overdue while its job runs is told with how long it was": (
        [
            samples.issuance(),
            overdue_credential(20),
            overdue_credential(40, attempt=2),
            samples.credential_confirmation(at=later(3620)),
            samples.revocation_start(at=later(3700)),
            samples.revocation_proof(at=later(3701)),
        ],
        "revocation.overdue",
        {"jobs": 1, "longest_seconds": 3600.0},
        "attention",
    ),
    "a credential that is still overdue has been so until the period's end": (
        [samples.issuance(), overdue_credential(400)],
        "revocation.overdue",
        {"jobs": 1, "longest_seconds": 86000.0},
        "attention",
    ),
    "what could be revoked and ended unseen wants attention": (
        [samples.issuance(), expiry()],
        "revocation.expired",
        {"expired_unconfirmed": 1, "revocable_now": 1, "issued_before_the_period": 0},
        "attention",
    ),
    "what only time ends, ended as it was to": (
        [samples.issuance(revocable="on_expiry"), expiry()],
        "revocation.expired",
        {"expired_unconfirmed": 1, "revocable_on_expiry": 1},
        "ok",
    ),
    "what could be revoked and expired wants attention, whenever it was issued": (
        [expiry(revocable="now"), expiry(2, revocable="on_expiry"), expiry(3)],
        "revocation.expired",
        {"expired_unconfirmed": 3, "revocable_now": 1, "revocable_on_expiry": 1, "issued_before_the_period": 1},
        "attention",
    ),
    "what cannot be revoked at all is counted as such, whenever it was issued": (
        [samples.credential_event(EventType.CREDENTIAL_RESIDUAL, until=None, why="a static secret")],
        "revocation.expired",
        {"expired_unconfirmed": 1, "revocable_never": 1, "issued_before_the_period": 0},
        "ok",
    ),
    "what cannot be revoked is counted when it is issued": (
        [samples.issuance(), samples.issuance(number=2, revocable="never")],
        "revocation.never",
        {"issued": 2, "never_revocable": 1},
        "attention",
    ),
    "an approval is its tier's": (
        [*ASKED, samples.approval_opening(tier=2, at=later(900), escalated=True), samples.approval_decision("approved", at=later(950))],
        "approvals.outcomes",
        {"opened": 1, "escalated": 1, "approved": 1, "denied": 0, "expired": 0},
        "ok",
    ),
    "approvals that are enough for the next tier settle the request as it escalates": (
        [*ASKED, samples.approval_decision("pending"), ESCALATED_AND_APPROVED],
        "approvals.outcomes",
        {"opened": 1, "escalated": 1, "approved": 1, "denied": 0, "expired": 0},
        "ok",
    ),
    "a request that was approved as it escalated waited until then": (
        [*ASKED, samples.approval_decision("pending"), ESCALATED_AND_APPROVED],
        "approvals.latency",
        {"measured": 1, "p95_seconds": 900.0},
        "ok",
    ),
    "a request that was approved as it escalated is a grant that may never be used": (
        [*ASKED, samples.approval_decision("pending"), ESCALATED_AND_APPROVED, samples.job_end(at=later(950))],
        "use.unissued",
        {"granted": 1, "never_issued": 1},
        "ok",
    ),
    "an approval that nobody gave wants attention": ([*ASKED, approval_expiry(900)], "approvals.outcomes", {"expired": 1}, "attention"),
    "answers that settle nothing are counted by person": (
        [*ASKED, samples.approval_decision("pending", person="chief"), samples.approval_decision("denied", person="lead", decision="deny")],
        "approvals.people",
        {"answers": 2, "people": 2},
        "ok",
    ),
    "latency is from opening to settlement, however it climbs": (
        [*ASKED, samples.approval_opening(tier=2, at=later(900), escalated=True), samples.approval_decision("approved", at=later(1000))],
        "approvals.latency",
        {"measured": 1, "p95_seconds": 1000.0},
        "ok",
    ),
    "a request opened before the period has no latency": (
        [samples.approval_decision("approved")],
        "approvals.latency",
        {"measured": 0},
        "ok",
    ),
    "a job that waits for two answers waits once": (
        [
            *ASKED,
            samples.access_request(number=2),
            samples.approval_opening(number=2, at=later(1800)),
            samples.approval_decision("approved", at=later(3600)),
            samples.approval_decision("approved", number=2, at=later(7200)),
        ],
        "approvals.waiting",
        {"job_hours": 2.0, "waits": 1, "waiting_at_the_end": 0},
        "ok",
    ),
    "a job that ends waits no longer": (
        [*ASKED, samples.job_end(at=later(1800))],
        "approvals.waiting",
        {"job_hours": 0.5, "waiting_at_the_end": 0},
        "ok",
    ),
    "a request that is withdrawn waits no longer": ([*ASKED, withdrawal(900)], "approvals.waiting", {"job_hours": 0.25}, "ok"),
    "who still waits has waited until the period's end": (ASKED, "approvals.waiting", {"job_hours": 24.0, "waiting_at_the_end": 1}, "ok"),
    "less time than was asked for is narrower": (
        [*ASKED, samples.approval_decision("approved")],
        "approvals.narrowed",
        {"narrowed": 1, "by_ttl": 1, "by_action": 0},
        "ok",
    ),
    "a lesser action is narrower": (
        [*ASKED, samples.replace_data(samples.approval_decision("approved"), granted_ttl=600, granted_action="read")],
        "approvals.narrowed",
        {"narrowed": 1, "by_ttl": 0, "by_action": 1},
        "ok",
    ),
    "fewer calls of tools are narrower": (
        [
            *THROUGH,
            samples.replace_data(
                samples.approval_decision("approved"),
                granted_ttl=600,
                granted_action="write",
                granted_tools={"a": {"calls": 1, "arguments": {}}},
            ),
        ],
        "approvals.narrowed",
        {"narrowed": 1, "by_ttl": 0, "by_action": 0, "by_tools": 1},
        "ok",
    ),
    "all calls that were asked for are not narrower": (
        [
            *THROUGH,
            samples.replace_data(
                samples.approval_decision("approved"), granted_ttl=600, granted_action="write", granted_tools={"a": {"arguments": {}}}
            ),
        ],
        "approvals.narrowed",
        {"narrowed": 0},
        "ok",
    ),
    "all that was asked for is not narrower": (
        [*ASKED, samples.replace_data(samples.approval_decision("approved"), granted_ttl=600, granted_action="write")],
        "approvals.narrowed",
        {"narrowed": 0},
        "ok",
    ),
    "an approval taken back is counted": (
        [raw_entry("approval.withdrawn", request=part_id(JOB, "r"), person="e", name="lead", reason="no", signed={}, verdict="pending")],
        "approvals.withdrawn",
        {"withdrawn": 1},
        "ok",
    ),
    "an attempt on one's own job is both": (
        [rejection("Forbidden: no one answers for a job that they launched"), rejection("something new", 2)],
        "attempts.own",
        {"attempts": 1},
        "attention",
    ),
    "answers that do not count are counted": ([rejection("a"), rejection("b", 2)], "attempts.rejected", {"rejected": 2}, "attention"),
    "an order that does not hold is counted": (
        [samples.job_refusal("the order has expired")],
        "attempts.orders",
        {"attempts": 1},
        "attention",
    ),
    "the share that policy allows is of what was decided first": (
        [
            samples.access_decision("allowed"),
            samples.access_decision("denied", number=2),
            samples.access_decision("needs_approval", number=3),
            samples.access_decision("allowed", number=4, phase="runtime"),
            samples.access_decision("allowed", phase="issue"),
            samples.access_decision("allowed", phase="renewal"),
        ],
        "policy.automatic",
        {"decided": 4, "allowed": 2, "needs_approval": 1, "denied": 1, "auto_approved_share": 0.5},
        "ok",
    ),
    "nothing decided has no share": ([], "policy.automatic", {"decided": 0, "auto_approved_share": None}, "ok"),
    "denials are counted in any phase": (
        [samples.access_decision("denied"), samples.access_decision("denied", phase="issue")],
        "policy.denied",
        {"denied": 2},
        "ok",
    ),
    "a policy that errs wants attention": (
        [samples.access_decision("denied", errors=["x"])],
        "policy.errors",
        {"decisions_with_errors": 1},
        "attention",
    ),
    "emergencies and verdicts are counted": (
        [review(), review_answer("justified")],
        "emergency.reviews",
        {"opened": 1, "justified": 1, "unjustified": 0},
        "ok",
    ),
    "an unjustified emergency wants attention": (
        [review(), review_answer("unjustified")],
        "emergency.reviews",
        {"unjustified": 1},
        "attention",
    ),
    "a second lock is counted": ([raw_entry("lock.opened", request="r")], "emergency.locks", {"double_locked_issues": 1}, "ok"),
    "a grant under which nothing was issued is told once its job has ended": (
        [
            *ASKED,
            samples.approval_decision("approved"),
            samples.access_decision("allowed", number=2),
            samples.issuance(number=2),
            samples.job_end(),
        ],
        "use.unissued",
        {"granted": 2, "never_issued": 1},
        "ok",
    ),
    "a grant of a job that goes on may still be fetched": (
        [samples.access_decision("allowed")],
        "use.unissued",
        {"granted": 1, "never_issued": 0},
        "ok",
    ),
    "a grant that policy took back at issue was not left over": (
        [samples.access_decision("allowed"), samples.access_decision("denied", phase="issue"), samples.job_end()],
        "use.unissued",
        {"granted": 1, "never_issued": 0},
        "ok",
    ),
    "a grant whose approval was taken back was not left over": (
        [
            *ASKED,
            samples.approval_decision("approved"),
            raw_entry("approval.withdrawn", request=part_id(JOB, "r"), verdict="withdrawn"),
            samples.job_end(),
        ],
        "use.unissued",
        {"granted": 1, "never_issued": 0},
        "ok",
    ),
    "a narrower decision takes no grant back": (
        [samples.access_decision("allowed"), samples.access_decision("denied", phase="narrowed"), samples.job_end()],
        "use.unissued",
        {"granted": 1, "never_issued": 1},
        "ok",
    ),
    "an answer for somebody away is its giver's": (
        [
            samples.replace_data(samples.approval_decision("pending"), on_behalf_of="e-chief"),
            samples.approval_decision("pending", person="chief"),
        ],
        "approvals.people",
        {"answers": 2, "people": 2, "for_somebody_away": 1},
        "ok",
    ),
    "disuse is not observable": (
        [samples.issuance(), samples.credential_confirmation(), samples.job_end()],
        "use.unused",
        {"uses_observed": "not observable", "issued_without_use": "not observable"},
        "ok",
    ),
    "an observed use is told": (
        [samples.credential_event(EventType.CREDENTIAL_USED, what="a tool call")],
        "use.unused",
        {"uses_observed": 1, "issued_without_use": "not observable"},
        "ok",
    ),
    "a run without a sandbox wants attention": (
        [samples.job_start(), samples.replace_data(samples.job_start(job_id(2)), sandbox="off")],
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
        [build_event(EventType.LEDGER_CHECKPOINTED, "-", at=NOW, entries=7, root="ab", frontier=["ab"], checkpoint="x")],
        "ledger.checkpoint",
        {"last_checkpoint": NOW.isoformat()},
        "ok",
    ),
    "without a checkpoint the ledger's end is not held": (
        [samples.submission()],
        "ledger.checkpoint",
        {"last_checkpoint": "none"},
        "attention",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_each_line_has_the_expected_figures_and_status(name: str) -> None:
    facts, key, figures, status = CASES[name]
    found = line(report_of(*facts), key)
    assert {figure: found.figures[figure] for figure in figures} == figures
    assert found.status == status


def test_a_share_of_all_but_one_is_not_all() -> None:
    denied, *allowed = (samples.access_decision("allowed" if number > 1 else "denied", number=number) for number in range(1, 20_002))
    found = line(report_of(denied, *allowed), "policy.automatic")
    assert found.figures == {"decided": 20_001, "allowed": 20_000, "needs_approval": 0, "denied": 1, "auto_approved_share": 0.9999}
    assert found.status == "ok"


def test_every_line_of_the_report_has_a_case_or_describes_the_present() -> None:
    assert set(METRICS) - {key for _, key, _, _ in CASES.values()} == {
        *(key for key in METRICS if key.startswith("standing.")),
        "revocation.overdue_now",
        "emergency.open",
        "ledger.entries",
        "ledger.verified",
    }
