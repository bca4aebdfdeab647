"""The evidence report: each figure comes from records, each line's status from its rule, and each refers to entries and to items of
frameworks.
"""

from __future__ import annotations

import math
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from justenough.domain.evidence.aggregator import worst_status
from justenough.domain.evidence.current_state import CurrentState, LedgerState, LiveCredential
from justenough.domain.evidence.metric_definitions import ITEMS, METRICS, SECTIONS
from justenough.domain.evidence.report import Status
from justenough.domain.evidence.single_events import REASON_KINDS, rejection_kind_of
from justenough.domain.evidence.statistics import MAX_SHOWN, nearest_rank
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.ledger.hash_chain import ChainProblem, Fault, LedgerReport, moment_text
from justenough.domain.readmodel.views import ReviewView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, job_id, later, part_id
from tests.support.evidence_samples import DAY, SOUND, aggregator_of, expiry, line, live_credential, raw_entry, rejection, report_of

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "evidence.md"
# As the frameworks' own tables of contents have them.
FRAMEWORKS = """
NHI1 NHI2 NHI3 NHI4 NHI5 NHI6 NHI7 NHI8 NHI9 NHI10 ASI01 ASI02 ASI03 ASI04 ASI05 ASI06 ASI07 ASI08 ASI09 ASI10
GOVERN 1.4, 1.5, 1.6, 1.7, 2.1, 3.2, 6.1; MAP 1.5, 3.3, 3.5, 4.2; MEASURE 2.4, 2.6, 2.7, 2.8, 3.1; MANAGE 1.3, 2.3, 2.4, 4.1, 4.3
"""


STANDING: dict[str, tuple[LiveCredential, set[str]]] = {
    "of a running job": (live_credential(), set()),
    "of a job that ended": (live_credential(job_state="succeeded"), {"standing.after_end"}),
    "of a job that its sweep called lost": (live_credential(job_state="lost"), {"standing.after_end"}),
    "of no known job": (live_credential(job_state=None), {"standing.unknown_job"}),
    "a minute after its end, which the sweep's next round records": (live_credential(expires_at=NOW + DAY - timedelta(seconds=60)), set()),
    "longer after its end": (live_credential(expires_at=NOW + DAY - timedelta(seconds=61)), {"standing.beyond_end"}),
    "after its end and its job's": (live_credential(expires_at=NOW, job_state="killed"), {"standing.beyond_end", "standing.after_end"}),
}


@pytest.mark.parametrize("name", STANDING)
def test_standing_privilege_is_a_violation(name: str) -> None:
    one, wrong = STANDING[name]
    report = report_of(live=[one])
    assert {found.key for found in report.lines if found.status is Status.VIOLATION} == wrong
    for key in wrong:
        assert line(report, key).figures == {"credentials": 1}
        assert line(report, key).evidence.ids == (f"{JOB}/credential.issued/{one.credential}",)
    assert line(report, "standing.live").figures["credentials"] == 1
    assert report.status is (Status.VIOLATION if wrong else Status.ATTENTION)


def test_the_evidence_for_a_live_unrecorded_credential_is_the_entry_that_doubts_it() -> None:
    report = report_of(live=[live_credential(job_state="failed", known=False)])
    assert line(report, "standing.after_end").evidence.ids == (f"{JOB}/credential.doubted/{part_id(JOB, 'c')}",)


@pytest.mark.parametrize(
    "verified,status,figure",
    [
        (None, "attention", "no"),
        (LedgerReport(entries=3, jobs=1), "ok", "sound"),
        (
            LedgerReport(entries=3, jobs=1, problems=(ChainProblem(job=JOB, seq=2, fault=Fault.EDITED, message="x"),)),
            "violation",
            "not sound",
        ),
    ],
)
def test_the_report_shows_the_result_of_verifying_the_ledger(verified: LedgerReport | None, status: str, figure: str) -> None:
    found = line(report_of(ledger=LedgerState(entries=3, hash="ab", verified=verified)), "ledger.verified")
    assert (found.status, found.figures["verified"]) == (status, figure)


def test_lifetimes_are_reported_per_resource_and_action() -> None:
    report = report_of(
        samples.issuance(),
        samples.issuance(number=2, action="read"),
        samples.credential_confirmation(at=later(10)),
        samples.credential_confirmation(number=2, at=later(20)),
    )
    table = line(report, "lifetimes.real").table
    assert table is not None
    assert [(row[0], row[1], row[-1]) for row in table.rows] == [("orders-db:read", 1, 20.0), ("orders-db:write", 1, 10.0)]


def test_denials_are_counted_by_policy_and_default_denials_separately() -> None:
    table = line(
        report_of(samples.access_decision("denied"), samples.access_decision("denied", number=2, policies=[])),
        "policy.denied",
    ).table
    assert table is not None
    assert set(table.rows) == {("writes-need-tier-1", 1), ("(no policy permits it)", 1)}


@pytest.mark.parametrize("text,kind", REASON_KINDS)
def test_a_rejection_reason_is_classified_by_its_text(text: str, kind: str) -> None:
    assert rejection_kind_of(f"before {text} after") in {kind, *(other for found, other in REASON_KINDS if found in text)}
    assert rejection_kind_of("something that nobody foresaw") == "other"


# As they stand in the ledger; their texts are the console's and the worker's.
WHYS = {
    "no one answers for a job that they launched": "own job",
    "people cannot decide on a job that they launched": "own job",
    "people cannot decide on a job that they triggered, or on a descendant of a job that they launched": "own job",
    "Forbidden: the decision does not hold: the signature does not match the statement": "invalid signature",
    "the signature names a key that the person does not have": "invalid signature",
    "Forbidden: the decision is another person's: its statement names a different person than the token": "another person's statement",
    "Conflict: you have answered this request already, or a delegate has for you": "already decided",
    "this person has answered already": "already decided",
    "this person withdrew their answer": "already decided",
    "Stale: the request is not what you answered any more: its digest has changed": "changed or different content",
    "the decision is for another request": "changed or different content",
    "Conflict: the request is denied, not pending": "not pending",
    "the decision names no request of this job that waits for an answer": "not pending",
    "this job has no such request that waits for an answer": "not pending",
    "the statement has expired": "expired or from the future",
    "Forbidden: needs one of the groups: chiefs": "not authorized",
    "the request is at tier 2, which this person does not answer for": "not authorized",
    "the request is at tier 2, at which this person may not decide": "not authorized",
    "the signer is not an active person: the entity has no login on a people mount, or is disabled": "not authorized",
    "this person has no approval here to withdraw": "not pending",
    "the workflow's copy of the request differs from the recorded request": "changed or different content",
    "the delegation is not valid now: the statement is valid for longer than 90 days": "expired or from the future",
    "ops is in no group that answers requests": "not authorized",
    "ops is in no group that approves requests": "not authorized",
    "their appointment as a delegate is not valid now: the statement has expired": "expired or from the future",
    "not a {statement, signature}": "malformed",
    "not a signed statement: it needs `statement` and `signature`": "malformed",
    "this is not a statement of type decision": "malformed",
    "InvalidInput: decision: statement.reason: a reason is required": "malformed",
    "the decision has no reason, but one is required": "malformed",
    "the decision's ttl is 121 s; it must be from 1 to 120 s": "malformed",
    "Conflict: the request is pending and has no approval of yours to withdraw": "not pending",
    "Forbidden: only the job's launcher may do this, or a member of: chiefs": "not authorized",
    "Forbidden: the decision is not valid: policy denies read for 2m by break-glass (no-breaking-glass-for-restricted)": "denied by policy",
    "read for 30s needs tier 3, but the request is at tier 2": "denied by policy",
    "read for 30s needs tier 3, but the request is at tier 2 until it escalates": "denied by policy",
}


@pytest.mark.parametrize("why", WHYS)
def test_the_recorded_rejection_reasons_are_classified(why: str) -> None:
    assert rejection_kind_of(why) == WHYS[why]


def test_up_to_twenty_entries_are_named_and_a_command_lists_the_others() -> None:
    few = line(report_of(*(rejection("x", number) for number in range(MAX_SHOWN))), "attempts.rejected").evidence
    more = line(report_of(*(rejection("x", number) for number in range(MAX_SHOWN + 1))), "attempts.rejected").evidence
    assert (few.count, len(few.ids), few.command) == (MAX_SHOWN, MAX_SHOWN, None)
    assert (more.count, more.ids) == (MAX_SHOWN + 1, few.ids)
    assert more.command == (
        "justenough ledger list --type approval.rejected --since 2026-01-30T09:30:00.000000Z --until 2026-02-01T09:30:00.000000Z"
    )


def test_entries_of_unknown_types_do_not_change_the_report() -> None:
    assert [one.figures for one in report_of(raw_entry("from.tomorrow", x=1)).lines][:-3] == [one.figures for one in report_of().lines][:-3]


def test_ended_jobs_leave_nothing_behind() -> None:
    jobs = [job_id(number) for number in range(50)]
    whole = [
        [
            samples.submission(job),
            samples.access_request(job),
            samples.access_decision("needs_approval", job, tier=1),
            samples.approval_opening(job),
            samples.approval_decision("approved", job),
            samples.job_start(job),
            samples.issuance(job),
            samples.revocation_start(job),
            samples.credential_confirmation(job),
            samples.revocation_proof(job),
            samples.job_end(job=job),
        ]
        for job in jobs
    ]
    fold = aggregator_of([fact for facts in whole for fact in facts])
    assert fold.open_credentials == {}
    _, revocations, approvals, grants, _ = fold._metrics
    assert (approvals._jobs, grants._unfetched, revocations._since) == ({}, {}, {})


@given(st.lists(st.floats(0, 1e6), min_size=1), st.sampled_from([50, 95, 100]))
def test_the_nearest_rank_is_the_least_value_that_covers_the_given_share_of_values(values: list[float], percent: int) -> None:
    ordered = sorted(values)
    found = nearest_rank(ordered, percent)
    enough = [value for value in ordered if 100 * sum(other <= value for other in ordered) >= percent * len(ordered)]
    assert found == round(min(enough), 3)


@pytest.mark.parametrize(
    "values,percent,expected",
    [([], 50, None), ([7.0], 95, 7.0), ([1.0, 2.0], 50, 1.0), ([1.0, 2.0, 3.0, 4.0], 95, 4.0), ([1.0] * 99 + [9.0], 95, 1.0)],
)
def test_nearest_rank_equals_values_computed_by_hand(values: list[float], percent: int, expected: float | None) -> None:
    assert nearest_rank(values, percent) == expected


REQUESTS = st.lists(
    st.tuples(st.sampled_from(["approved", "denied", "pending", "expired", "nothing"]), st.integers(1, 3), st.integers(0, 9))
)


@settings(deadline=None)  # A whole report each time: on a busy machine one takes longer than hypothesis expects.
@given(REQUESTS)
def test_the_totals_of_a_report_add_up(requests: list[tuple[str, int, int]]) -> None:
    facts: list[Event] = []
    for number, (outcome, tier, person) in enumerate(requests, start=1):
        job = job_id(number)
        facts += [
            samples.access_request(job),
            samples.access_decision("needs_approval", job, tier=tier),
            samples.approval_opening(job, tier=tier),
        ]
        if outcome == "expired":
            facts.append(build_event(EventType.APPROVAL_EXPIRED, job, at=later(60), about="x", request=part_id(job, "r"), tier=tier))
        elif outcome != "nothing":
            facts.append(samples.approval_decision(outcome, job, person=f"p{person}", at=later(60)))
    report = report_of(*facts)
    outcomes, people, waiting = (line(report, f"approvals.{name}") for name in ("outcomes", "people", "waiting"))
    assert outcomes.table is not None
    assert people.table is not None
    columns = list(zip(*outcomes.table.rows, strict=True))[1:] or [()] * 5
    assert [sum(column) for column in columns] == list(outcomes.figures.values())
    assert sum(row[1] for row in people.table.rows) == people.figures["answers"]  # type: ignore[misc] # its cells are counts
    settled = sum(outcome in {"approved", "denied", "expired"} for outcome, _, _ in requests)
    assert line(report, "approvals.latency").figures["measured"] == settled
    hours = settled / 60 + 24 * (len(requests) - settled)
    assert math.isclose(float(waiting.figures["job_hours"] or 0), hours, abs_tol=0.001)


def test_every_line_of_the_report_refers_to_items_that_exist() -> None:
    named_items = {item for metric in METRICS.values() for item in metric.items}
    assert all(metric.items for metric in METRICS.values())
    assert named_items <= set(ITEMS)
    groups = {function: re.findall(r"\d\.\d", part) for function, part in re.findall(r"(GOVERN|MAP|MEASURE|MANAGE) ([\d., ]+)", FRAMEWORKS)}
    known = {*re.findall(r"(?:NHI|ASI)\d+", FRAMEWORKS), *(f"{function} {number}" for function in groups for number in groups[function])}
    assert set(ITEMS) == known


def test_every_line_is_in_the_section_that_its_key_names() -> None:
    report = report_of()
    assert [section.key for section in report.sections] == list(SECTIONS)
    assert [one.key for one in report.lines] == list(METRICS)
    assert all(section.lines for section in report.sections)


def text_of(page: Path) -> str:
    """A page's text on one line: where it wraps says nothing."""
    return " ".join(page.read_text().split())


@pytest.mark.parametrize("key", METRICS)
def test_the_documentation_says_of_each_line_what_the_report_says(key: str) -> None:
    told = METRICS[key]
    assert (
        f"**{told.title}** (`{key}`) {told.definition} Status: {told.rule}. Shows: {told.shows} Items: {', '.join(told.items)}."
    ) in text_of(DOCS)


def test_the_documentation_names_the_items_that_lines_refer_to_and_those_without_a_line() -> None:
    text = DOCS.read_text()
    borne = {item for metric in METRICS.values() for item in metric.items}
    assert set(re.findall(r"^\| ((?:NHI|ASI|GOVERN |MAP |MEASURE |MANAGE )[\d.]+) \|", text, re.MULTILINE)) == borne
    assert f"No line is relevant to: {', '.join(item for item in ITEMS if item not in borne)}." in text_of(DOCS)


def test_the_status_of_the_report_is_that_of_its_worst_line() -> None:
    assert worst_status([]) is Status.OK
    assert worst_status([Status.OK, Status.VIOLATION, Status.ATTENTION]) is Status.VIOLATION
    assert worst_status([Status.ATTENTION, Status.OK]) is Status.ATTENTION


def open_review(age: timedelta) -> ReviewView:
    """A review that nobody has answered."""
    passed: dict[str, Any] = {"tiers": (1,), "groups": ("security",), "reason": "fire"}
    return ReviewView(request_id=part_id(JOB, "r"), job_id=JOB, person="lead", person_id="e", opened_at=NOW - age, open=True, **passed)


@pytest.mark.parametrize("age,late,status", [(timedelta(hours=24), 0, "ok"), (timedelta(hours=24, seconds=1), 1, "attention")])
def test_a_review_that_is_open_for_more_than_a_day_wants_attention(age: timedelta, late: int, status: str) -> None:
    standing = CurrentState(now=NOW)
    standing.add_open_review(open_review(age))
    found = line(aggregator_of([]).report(installation="dev", now=NOW, current_state=standing, ledger=SOUND), "emergency.open")
    assert (found.figures, found.status) == ({"open": 1, "open_too_long": late}, status)
    assert found.evidence.ids == (f"{JOB}/review.opened/{part_id(JOB, 'r')}",)
    assert found.table is not None
    assert found.table.rows[0][2:] == ("lead", "security", age.total_seconds())


def test_the_command_for_expired_credentials_also_lists_those_that_nothing_ever_ends() -> None:
    # A static secret is never recorded as expired: it stays valid until its owner changes it.
    endless: dict[str, Any] = {"until": None, "why": "it cannot be revoked"}
    numbers = range(1, MAX_SHOWN + 2)
    issued = [samples.issuance(number=number, revocable="never") for number in numbers]
    ended = [samples.credential_event(EventType.CREDENTIAL_RESIDUAL, number=number, **endless) for number in numbers]
    evidence = line(report_of(*issued, *ended), "revocation.expired").evidence
    assert evidence.count == MAX_SHOWN + 1
    assert evidence.command is not None
    assert {f"--type {name.split('/')[1]}" for name in evidence.ids} == {"--type credential.residual"}
    assert "--type credential.expired --type credential.residual" in evidence.command


def test_a_doubted_credential_is_followed_to_its_end_and_one_that_will_expire_is_not_counted_as_expired() -> None:
    told = {**samples.issuance().data, "asked_at": moment_text(NOW)}
    fields = ["request", "resource", "action", "asked_at", "expires_at", "revocable"]
    doubted = samples.credential_event(EventType.CREDENTIAL_DOUBTED, **{name: told[name] for name in fields})
    residual = samples.credential_event(EventType.CREDENTIAL_RESIDUAL, until=moment_text(later(600)), why="it cannot be revoked")
    assert line(report_of(doubted, residual), "revocation.expired").evidence.count == 0
    assert line(report_of(doubted, residual, expiry()), "revocation.expired").evidence.count == 1
    # An end is counted only if its beginning was recorded.
    ended = samples.credential_confirmation(at=later(60))
    figures = [line(report_of(*entries), "lifetimes.real").figures for entries in ((doubted, ended), (ended,))]
    assert [(item["measured"], item["real_max_seconds"]) for item in figures] == [(1, 60), (0, None)]


@pytest.mark.parametrize("key", ["approvals.outcomes", "approvals.latency", "approvals.narrowed", "use.unissued"])
def test_the_command_for_settled_requests_also_lists_those_that_were_approved_as_they_escalated(key: str) -> None:
    approved: dict[str, Any] = {"verdict": "approved", "granted_ttl": 60, "granted_action": "write"}
    jobs = [
        [
            samples.access_request(job),
            samples.access_decision("needs_approval", job, tier=1),
            samples.approval_opening(job),
            samples.approval_opening(job, tier=2, escalated=True, **approved),
            samples.job_end(job=job),
        ]
        for job in map(job_id, range(MAX_SHOWN + 1))
    ]
    evidence = line(report_of(*(event for events in jobs for event in events)), key).evidence
    assert evidence.command is not None
    assert {name.split("/")[1] for name in evidence.ids} <= set(evidence.command.split())


@pytest.mark.parametrize("is_opened_in_period", [True, False])
def test_an_approval_counts_at_the_tier_of_its_request_even_if_that_opened_before_the_period(is_opened_in_period: bool) -> None:
    opened = [samples.approval_opening(tier=1)] if is_opened_in_period else []
    # A person of tier 3 decides a request at tier 1.
    decided = samples.replace_data(samples.approval_decision("approved"), tier=3, current_tier=1)
    table = line(report_of(*opened, decided), "approvals.outcomes").table
    assert table is not None
    assert [(row[0], row[3]) for row in table.rows] == [(1, 1)]
