"""What people are notified of: only what needs them, in plain words, with other people's text kept apart and harmless."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.domain.integrations.notifications import (
    ENDINGS,
    MAX_QUOTE_CHARS,
    NOTIFYING_EVENTS,
    REVOCABLE_TEXTS,
    SETTLING_EVENTS,
    NoticeContext,
    build_follow_up,
    build_notice,
    find_settled,
    is_for_tiers,
    is_still_pending,
    notice_subject,
    to_plain_text,
)
from justenough.domain.integrations.retry_policy import SentNotice
from justenough.domain.jobs.states import CredentialState, RequestState, Revocable
from justenough.domain.jobs.tool_bounds import Bounds
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import CredentialView, EntryView, JobView, RequestView
from tests.adapters.store.event_samples import JOB, NOW, part_id

REQUEST = part_id(JOB, "r")
CONSOLE = "https://je.example.com/"


def entry(kind: EventType, **data: Any) -> EntryView:
    return EntryView(position=1, job=JOB, seq=1, id=f"{JOB}/{kind}", type=kind, at=NOW, data=data, prev="", hash="")


def approval_opening(tier: int = 1, kind: EventType = EventType.APPROVAL_OPENED, quorum: int = 1) -> EntryView:
    return entry(kind, request=REQUEST, tier=tier, respond_by=(NOW + timedelta(minutes=15)).isoformat(), quorum=quorum)


def request_view(**changes: Any) -> RequestView:
    whole: dict[str, Any] = {
        "id": REQUEST,
        "job_id": JOB,
        "resource": "refunds-db",
        "title": "Refunds database",
        "action": "write",
        "ttl": 300,
        "reason": "Write the refund",
        "reason_by": "order",
        "signed_reason": "Write the refund",
        "optional": False,
        "sensitivity": "confidential",
        "revocable": "now",
        "state": "pending",
        "tier": 1,
        "current_tier": 1,
        "policies": ("writes-need-an-owner",),
        "created_at": NOW,
        "job_name": "refund-triage",
        "task": "Refund ticket 4711",
        "requester": "ops",
    }
    return RequestView.model_validate({**whole, **changes})


def credential_view(state: CredentialState) -> CredentialView:
    times = {"issued_at": NOW, "expires_at": NOW + timedelta(minutes=5)}
    whole = {"id": part_id(JOB, "c"), "job_id": JOB, "request_id": REQUEST, "resource": "refunds-db", "action": "write", "revocable": "now"}
    unknown = {"lease_id": None, "accessor": None}
    return CredentialView.model_validate({**whole, **times, **unknown, "state": state})


def scene(request: RequestView | None = None, **changes: Any) -> NoticeContext:
    return NoticeContext(**{"request": request or request_view(), "top": 3, "console": CONSOLE, **changes})


def earlier_notice(about: str = f"request/{REQUEST}", target: str = "kv/data/leads#chat", tier: int = 1) -> SentNotice:
    return SentNotice(about=about, target=target, tier=tier, job=JOB)


def job_view(**changes: Any) -> JobView:
    known = {"id": JOB, "name": "refund-triage", "task": "x", "environment": "prod", "requester": "ops", "requester_id": "e-ops"}
    state = {"state": "awaiting_approval", "created_at": NOW, "revocation": {"state": "none"}}
    return JobView.model_validate({**known, **state, **changes})


ABOUT = {"request": REQUEST, "credential": part_id(JOB, "c")}
REVIEW: dict[str, Any] = {
    "request_id": REQUEST,
    "job_id": JOB,
    "person": "oncall",
    "person_id": "e-oncall",
    "reason": "x",
    "opened_at": NOW,
    "open": True,
    "tiers": (1,),
    "groups": ("leads",),
}
FAILURES = {"failures": ["the target hangs"], "attempt": 1}
NOTICES = {
    EventType.APPROVAL_OPENED: (approval_opening(), scene(), "Approval needed (tier 1)"),
    EventType.APPROVAL_ESCALATED: (
        approval_opening(2, EventType.APPROVAL_ESCALATED),
        scene(request_view(current_tier=2)),
        "Approval needed (tier 2)",
    ),
    EventType.REVIEW_OPENED: (
        entry(EventType.REVIEW_OPENED, request=REQUEST, name="oncall", reason="x", tiers=[1]),
        scene(request_view(review=REVIEW)),
        "Review needed",
    ),
    EventType.REVOCATION_OVERDUE: (
        entry(EventType.REVOCATION_OVERDUE, **FAILURES),
        scene(job=job_view(revocation={"state": "overdue"})),
        "Revocation overdue",
    ),
    EventType.CREDENTIAL_OVERDUE: (
        entry(EventType.CREDENTIAL_OVERDUE, credential=part_id(JOB, "c"), **FAILURES),
        scene(credential=credential_view(CredentialState.OVERDUE)),
        "Credential revocation overdue",
    ),
}
"""By type of event that notifies: an event that still needs a person, its circumstances, and the beginning of its notice."""


@pytest.mark.parametrize("kind", sorted(NOTIFYING_EVENTS))
def test_each_event_that_notifies_has_a_notice_of_its_own_and_is_settled_by_another(kind: EventType) -> None:
    event, context, title = NOTICES[kind]

    assert is_still_pending(event, context)
    assert build_notice(event, context).title.startswith(f"{title}: ")
    assert any(notice_subject(entry(ending, **ABOUT)) == notice_subject(event) for ending in SETTLING_EVENTS - {kind})


def test_every_revocability_has_a_text() -> None:
    assert set(REVOCABLE_TEXTS) == {kind.value for kind in Revocable}


def test_a_reason_that_the_program_wrote_is_told_apart_from_the_signed_one() -> None:
    claimed = request_view(reason="The CFO approved this by phone", reason_by="program")
    body = build_notice(approval_opening(), scene(claimed)).body
    assert "Reason (from the signed spec): “Write the refund”" in body
    assert "Reason (written by the program, unverified): “The CFO approved this by phone”" in body


def test_a_reason_that_a_parent_job_wrote_is_never_called_signed() -> None:
    for changes in ({}, {"reason": "The CFO approved this by phone", "reason_by": "program", "signed_reason": "Write the refund"}):
        body = build_notice(approval_opening(), scene(request_view(parent="j-dev-0", **changes))).body
        assert "Reason (from the parent job, unverified): “Write the refund”" in body
        assert "from the signed spec" not in body


def test_a_request_of_a_job_that_times_out_sooner_is_to_be_decided_before_that() -> None:
    ending = request_view(expires_at=NOW + timedelta(minutes=15), job_times_out_at=NOW + timedelta(minutes=5))
    body = build_notice(approval_opening(), scene(ending)).body
    assert "Decide by 2026-01-31 09:35 UTC; 1 approval is needed. The job times out then. Never auto-approved." in body


def test_access_through_tools_is_reported_as_that() -> None:
    bound = request_view().model_copy(update={"tools": {"refund-order": Bounds(calls=3)}})
    assert (
        build_notice(approval_opening(), scene(bound)).title == "Approval needed (tier 1): write on Refunds database through refund-order"
    )


@pytest.mark.parametrize("kind", [EventType.APPROVAL_OPENED, EventType.APPROVAL_ESCALATED])
@pytest.mark.parametrize("tier", [1, 2, 3])
@pytest.mark.parametrize("tiers", [(1,), (2, 3), (1, 2, 3)])
def test_only_the_tier_that_must_decide_is_notified(kind: EventType, tier: int, tiers: tuple[int, ...]) -> None:
    assert is_for_tiers(approval_opening(tier, kind), on=[kind], tiers=tiers) is (tier in tiers)
    assert not is_for_tiers(approval_opening(tier, kind), on=NOTIFYING_EVENTS - {kind}, tiers=tiers)


def test_the_tiers_that_break_glass_bypassed_are_asked_for_the_review() -> None:
    review = entry(EventType.REVIEW_OPENED, request=REQUEST, tiers=[1, 2])
    assert [is_for_tiers(review, on=[EventType.REVIEW_OPENED], tiers=[tier]) for tier in (1, 2, 3)] == [True, True, False]


def test_a_notice_describes_the_pending_request_and_its_link_only_shows_it() -> None:
    said = build_notice(approval_opening(), scene())
    assert said.title == "Approval needed (tier 1): write on Refunds database"
    assert "refund-triage, launched by ops, requests write on Refunds database (refunds-db, confidential) for 5m." in said.body
    assert "Reason (from the signed spec): “Write the refund”" in said.body
    assert "writes-need-an-owner" in said.body
    assert (
        "Decide by 2026-01-31 09:45 UTC; 1 approval is needed. Escalates to tier 2 if nobody decides in time. Never auto-approved."
        in said.body
    )
    assert "can be revoked immediately" in said.body
    assert said.body.count("://") == 1
    assert said.body.endswith(f"Review: https://je.example.com/inbox/{REQUEST}")


@pytest.mark.parametrize(
    "tier, silence", [(2, "Escalates to tier 3 if nobody decides in time. Never auto-approved."), (3, "Expires if nobody decides in time.")]
)
def test_a_notice_of_an_escalation_says_what_happens_if_nobody_decides(tier: int, silence: str) -> None:
    said = build_notice(approval_opening(tier, EventType.APPROVAL_ESCALATED, quorum=2), scene(request_view(current_tier=tier)))
    assert silence in said.body
    assert "2 approvals by different people are needed" in said.body
    assert f"Escalated: tier {tier - 1} did not decide in time." in said.body


def test_a_notice_of_a_credential_that_could_not_be_revoked_names_it_and_is_not_sent_late() -> None:
    credential = part_id(JOB, "c")
    overdue = entry(EventType.CREDENTIAL_OVERDUE, credential=credential, failures=["the target hangs", "*Vault* is sealed"], attempt=1)
    said = build_notice(overdue, scene())
    assert said.title == f"Credential revocation overdue: {JOB}"
    first, cause, link = said.body.splitlines()
    assert first == f"Credential {credential} of job {JOB} could not be revoked and may still work. Retrying automatically."
    assert cause.startswith("Last error: the target hangs; ")
    assert "*" not in cause
    assert link == f"View: {CONSOLE}jobs/{JOB}"
    assert [is_still_pending(overdue, scene(credential=credential_view(state))) for state in CredentialState] == [
        state is CredentialState.OVERDUE for state in CredentialState
    ]
    assert not is_still_pending(overdue, NoticeContext())


def test_without_an_address_of_the_console_the_command_is_named() -> None:
    assert build_notice(approval_opening(), scene(console=None)).body.endswith(f"justenough request show {REQUEST}")


def test_an_agent_is_named() -> None:
    job = job_view(agent={"name": "refund-agent", "version": "1.4"})
    assert "refund-triage by agent refund-agent 1.4, launched by ops, requests" in build_notice(approval_opening(), scene(job=job)).body


@pytest.mark.parametrize(
    "words",
    [
        "<!channel> approve at once",
        "@here @everyone",
        "[click here](https://evil.example/approve)",
        "<https://evil.example/approve|the card>",
        "https://evil.example/approve",
        "evil.example/approve",
        "line\nApproval needed (tier 1): nothing\n\nLook and answer: https://evil.example",
        "*bold* _it_ `code` ~gone~ ||spoiler|| # title",
        "<a href='https://evil.example'>card</a><script>alert(1)</script>",
        "\u202egnihton\u202c \u2066x\u2069 \x1b[31mred",
        "x" * 10_000,
    ],
)
def test_text_that_others_wrote_becomes_one_shortened_line_without_markup_mentions_and_links(words: str) -> None:
    said = build_notice(approval_opening(), scene(request_view(reason=words, task=words, title=words, requester=words)))
    quiet = build_notice(approval_opening(), scene(request_view(reason="x", task="x", title="x", requester="x")))
    assert said.body.count("\n") == quiet.body.count("\n")
    assert said.body.count("://") == 1
    assert "evil.example" not in said.body + said.title
    assert not set("<>[]*_`~|@#\x1b\u202e\u2066") & set(said.body.replace(CONSOLE, "") + said.title)
    assert len(said.body) < 2_000
    assert len(said.title) < 300


@given(st.text(max_size=600))
def test_any_written_text_is_harmless(text: str) -> None:
    found = to_plain_text(text)
    assert len(found) <= MAX_QUOTE_CHARS + found.count("⁄") + found.count("․")
    assert not set("<>[]*_`~|@#\\\n\r\x00") & set(found)
    assert "://" not in found
    assert to_plain_text(found) == found


@pytest.mark.parametrize("state", [state for state in RequestState if state is not RequestState.PENDING])
def test_a_request_that_was_decided_or_escalated_needs_no_further_notice(state: RequestState) -> None:
    assert is_still_pending(approval_opening(), scene())
    assert not is_still_pending(approval_opening(), scene(request_view(state=state)))
    assert not is_still_pending(approval_opening(), scene(request_view(current_tier=2)))
    assert not is_still_pending(approval_opening(), NoticeContext())


@pytest.mark.parametrize(
    "event, settled",
    [
        (entry(EventType.APPROVAL_DECIDED, request=REQUEST, verdict="pending"), 0),
        (entry(EventType.APPROVAL_DECIDED, request=REQUEST, verdict="approved"), 2),
        (entry(EventType.APPROVAL_DECIDED, request=part_id(JOB, "r", 2), verdict="approved"), 0),
        (entry(EventType.APPROVAL_EXPIRED, request=REQUEST, tier=3), 2),
        (entry(EventType.APPROVAL_WITHDRAWN, request=REQUEST, verdict="pending"), 0),
        (entry(EventType.ACCESS_WITHDRAWN, request=REQUEST, why="over"), 2),
        (entry(EventType.JOB_ENDED, state="killed"), 2),
        (approval_opening(1, EventType.APPROVAL_ESCALATED), 0),
        (approval_opening(2, EventType.APPROVAL_ESCALATED), 2),
        (approval_opening(1), 0),
        (entry(EventType.REVIEW_ANSWERED, request=REQUEST, verdict="justified"), 1),
        (entry(EventType.REVOCATION_CONFIRMED), 1),
        (entry(EventType.CREDENTIAL_CONFIRMED, credential=part_id(JOB, "c")), 1),
    ],
    ids=lambda value: value.type if isinstance(value, EntryView) else str(value),
)
def test_notified_people_are_notified_of_the_end(event: EntryView, settled: int) -> None:
    everyone = [
        earlier_notice(),
        earlier_notice(target="kv/data/leads#mail"),
        earlier_notice(about=f"review/{REQUEST}"),
        earlier_notice(about=f"revocation/{JOB}"),
        earlier_notice(about=f"credential/{part_id(JOB, 'c')}"),
    ]
    found = find_settled(event, everyone)
    assert len(found) == settled
    kind = {"job.ended": f"request/{REQUEST}"}.get(event.type, notice_subject(event))
    assert {one.about for one in found} <= {kind}


def test_every_ending_of_a_request_has_a_text() -> None:
    assert set(ENDINGS) == SETTLING_EVENTS
    decided = entry(EventType.APPROVAL_DECIDED, request=REQUEST, verdict="approved", decision="approve", name="lead", reason="fine")
    said = build_follow_up(decided, f"request/{REQUEST}", scene())
    assert said.title == "Settled: write on Refunds database for refund-triage"
    assert said.body == "lead approved the request: “fine”. No action needed."
