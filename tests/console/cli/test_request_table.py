"""Requests as an approver watches them: what each needs now, and in words what changed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from console.cli.render.request_table import (
    approval_count,
    ceiling_lines,
    deadline_text,
    decide_by,
    decide_by_text,
    decisions_text,
    reason_lines,
    request_changes,
    request_sentence,
    request_table_lines,
    short_reason_source,
    shown_tier,
)
from console.presentation.terminal_text import width

NOW = datetime(2026, 1, 1, 18, tzinfo=UTC)
LATER = (NOW + timedelta(seconds=245)).isoformat()
CLAIM = {"by": "lead", "by_id": "e-lead", "until": LATER}
ANSWER = {
    "approver": "lead",
    "approver_id": "e-lead",
    "tier": 1,
    "decision": "approve",
    "reason": "it holds",
    "at": "2026-01-01T17:50:00Z",
    "withdrawn_at": None,
}


def request(**changes: Any) -> dict[str, Any]:
    asks = {"id": "r-1", "job_id": "j", "job_name": "triage", "requester": "ops", "resource": "refunds-db", "action": "write", "ttl": 300}
    stands = {
        "state": "pending",
        "tier": 1,
        "current_tier": 1,
        "quorum": 2,
        "expires_at": LATER,
        "reason": "a refund",
        "created_at": NOW.isoformat(),
    }
    return {**asks, **stands, "approvals": [], "claim": None, "lock": None, "review": None, **changes}


def test_decisions_that_no_longer_count_are_named_with_the_reason_and_not_counted() -> None:
    chief = {**ANSWER, "approver": "chief", "tier": 3, "reason": ""}
    gone, back = {**chief, "lapsed": "chief is in no group that approves requests"}, {**chief, "withdrawn_at": "2026-01-01T17:55:00Z"}
    escalated = request(current_tier=2, approvals=[ANSWER, chief, gone, back, {**ANSWER, "decision": "deny"}])
    assert approval_count(escalated) == "1 of 2"
    assert decisions_text(escalated).split("; ") == [
        "lead approved (it holds), which does not count at tier 2",
        "chief approved",
        "chief approved, which no longer counts: chief is in no group that approves requests",
        "chief approved, then withdrew it",
        "lead denied (it holds)",
    ]


def table_lines(*items: dict[str, Any], columns: int, lines: int = 20) -> list[str]:
    return list(request_table_lines(items, now=NOW, columns=columns, lines=lines))


def test_the_request_table_shows_what_each_request_needs_and_which_deadline_ends_first() -> None:
    sooner = request(id="r-2", expires_at=(NOW + timedelta(seconds=9)).isoformat(), claim=CLAIM, approvals=[ANSWER])

    head, first, second = table_lines(request(), sooner, columns=120)

    assert head.split("  ")[0] == "REQUEST"
    assert first.split() == ["r-2", "triage", "ops", "write", "refunds-db", "for", "5m", "1", "9s", "1", "of", "2", "lead"]
    assert second.split() == ["r-1", "triage", "ops", "write", "refunds-db", "for", "5m", "1", "4m05s", "0", "of", "2"]


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_no_line_of_the_request_table_is_wider_than_the_terminal_and_hidden_requests_are_counted(columns: int) -> None:
    shown = table_lines(
        *(request(id=f"r-dev-01m87z22sqy6za3exvdexeanxs-{n}", job_name="金" * 40) for n in range(30)), columns=columns, lines=12
    )

    assert len(shown) <= 12
    assert max(map(width, shown)) <= columns
    hidden = 30 - sum(line.startswith("r-dev") for line in shown)
    assert shown[-1] == f"and {hidden} more: justenough request list"


def test_the_request_table_says_that_no_request_is_pending() -> None:
    assert table_lines(columns=40) == ["No pending requests."]


@pytest.mark.parametrize(
    "changed,told",
    [
        ({}, []),
        ({"approvals": [ANSWER]}, ["lead approved: it holds (1 of 2)"]),
        ({"approvals": [ANSWER], "state": "approved"}, ["lead approved: it holds", "is now approved"]),
        (
            {"approvals": [{**ANSWER, "withdrawn_at": LATER}], "state": "withdrawn"},
            ["lead approved: it holds", "lead withdrew their approval", "is now withdrawn"],
        ),
        (
            {"current_tier": 2, "approvals": [ANSWER]},
            ["lead approved: it holds (0 of 2)", "escalated to tier 2, 0 of 2, until 2026-01-01T18:04:05Z"],
        ),
        ({"claim": CLAIM}, ["claimed by lead until 2026-01-01T18:04:05Z"]),
        ({"lock": {"accessor": "a", "expires_at": LATER}}, ["each approval must be authorized in Vault, too"]),
        ({"review": {"open": True}}, ["approved by break-glass; a review is open"]),
        ({"review": {"open": False, "verdict": "justified"}}, ["reviewed: justified"]),
        ({"state": "expired"}, ["is now expired"]),
    ],
)
def test_each_change_of_a_request_is_reported_once_in_words(changed: dict[str, Any], told: list[str]) -> None:
    after = request(**changed)

    assert [change.text for change in request_changes(request(), after)] == told
    assert list(request_changes(after, after)) == []


def test_released_claims_and_new_requests_are_reported() -> None:
    opened = "ops requests write on refunds-db for 5m (triage): a \\x1b[2J (its source was not recorded); tier 1, 0 of 2, until 2026-01-01T18:04:05Z"

    assert list(request_changes(request(claim=CLAIM), request())) == [("claim released", "")]
    assert list(request_changes(None, request(reason="a \x1b[2J"))) == [(opened, NOW.isoformat())]


def test_a_second_decision_by_the_same_person_at_another_tier_is_reported() -> None:
    before = request(approvals=[ANSWER], current_tier=2)
    after = {**before, "approvals": [ANSWER, {**ANSWER, "tier": 2, "at": LATER}]}
    assert list(request_changes(before, after)) == [("lead approved: it holds (1 of 2)", LATER)]


def test_a_change_has_the_time_at_which_it_happened() -> None:
    withdrawn = {**ANSWER, "withdrawn_at": LATER}
    review = {"open": False, "verdict": "justified", "opened_at": ANSWER["at"], "reviewed_at": LATER}
    changes = list(request_changes(None, request(approvals=[withdrawn], review=review)))
    assert [change.at for change in changes] == [NOW.isoformat(), ANSWER["at"], LATER, LATER]


@pytest.mark.parametrize(
    "item, said",
    [
        (request(escalates_to=2), "2026-01-01T18:04:05Z; then it escalates to tier 2"),
        (request(escalates_to=None), "2026-01-01T18:04:05Z; then it expires"),
        (request(), "2026-01-01T18:04:05Z"),
        (request(job_times_out_at=NOW.isoformat(), escalates_to=2), "2026-01-01T18:00:00Z; then the job times out"),
        (request(expires_at=None, escalates_to=2), ""),
        *((request(state=state, escalates_to=None), "") for state in ("denied", "approved", "expired", "withdrawn")),
    ],
)
def test_only_a_pending_request_says_until_when_to_decide_and_what_happens_then(item: dict[str, Any], said: str) -> None:
    assert decide_by_text(item) == said


@pytest.mark.parametrize(
    "source, said",
    [
        ({"reason_by": "order", "signed_reason": "a refund"}, "from the signed spec"),
        ({"reason_by": "order", "signed_reason": "a refund", "parent": "j-dev-0"}, "from the parent job, unverified"),
        ({"reason_by": "program", "signed_reason": None, "parent": "j-dev-0"}, "written by the program, unverified"),
        ({"reason_by": "program", "signed_reason": None}, "written by the program, unverified"),
        ({"reason_by": "program", "signed_reason": "another"}, "written by the program, unverified"),
        ({}, "its source was not recorded"),
    ],
)
def test_a_reason_is_shown_with_its_source_and_with_the_signed_one_if_they_differ(source: dict[str, Any], said: str) -> None:
    lines = dict(reason_lines(request(**source)))
    assert (lines["Reason"], lines["Reason by"]) == ("a refund", said)
    assert lines.get("Signed reason") == ("another" if source.get("signed_reason") == "another" else None)
    assert f"a refund ({said})" in request_sentence(request(**source))


def test_a_request_is_to_be_decided_before_its_job_times_out() -> None:
    soon = (NOW + timedelta(seconds=9)).isoformat()
    ending = request(job_times_out_at=soon)
    assert (decide_by(ending), decide_by(request()), decide_by(request(expires_at=None))) == (soon, LATER, None)
    assert deadline_text(ending) == "2026-01-01T18:00:09Z (the job times out then)"
    assert "until 2026-01-01T18:00:09Z (the job times out then)" in request_sentence(ending)
    assert table_lines(ending, columns=120)[1].split()[8] == "9s"


def test_a_request_that_the_order_does_not_name_is_reported_as_such() -> None:
    assert list(ceiling_lines(request(policies=["reads", "beyond-order"]))) == [("Order", "not named in the signed order")]
    assert list(ceiling_lines(request(policies=["reads"]))) == []


def test_the_first_sentence_about_a_request_includes_changes_without_a_recorded_time() -> None:
    locked = request(lock={"accessor": "a", "expires_at": LATER}, claim=CLAIM)
    (change,) = request_changes(None, locked)
    assert change.at == NOW.isoformat()
    assert change.text.endswith("; each approval must be authorized in Vault, too; claimed by lead until 2026-01-01T18:04:05Z")
    decided = request_sentence({**locked, "state": "approved"})
    assert ("Vault" in decided, "claimed" in decided) == (False, False)


@pytest.mark.parametrize(
    "item, shown",
    [
        (request(), 1),
        (request(current_tier=2), 2),
        (request(tier=0, current_tier=0, quorum=0, state="allowed"), "–"),
    ],
)
def test_a_request_that_needs_no_approval_has_no_tier(item: dict[str, Any], shown: object) -> None:
    assert shown_tier(item) == shown


@pytest.mark.parametrize(
    "source, word",
    [
        ({"reason_by": "order"}, "spec"),
        ({"reason_by": "order", "parent": "j-1"}, "parent job"),
        ({"reason_by": "program"}, "program"),
        ({}, ""),
    ],
)
def test_the_source_of_a_reason_is_one_word_in_a_table(source: dict[str, Any], word: str) -> None:
    assert short_reason_source(request(**source)) == word
