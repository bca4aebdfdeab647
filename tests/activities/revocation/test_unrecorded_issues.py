"""What a job's entries say about credentials that Vault may have issued and nobody recorded."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from activities.revocation.in_doubt import needed_entry_ids, requests_with_unrecorded_issues
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.readmodel.views import EntryView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, later, part_id

ASKED = samples.access_request()
ALLOWED = samples.access_decision("allowed")
ABOUT_TO_ISSUE = samples.access_decision("allowed", phase="issue", at=later(1))
ABOUT_TO_ISSUE_AGAIN = ABOUT_TO_ISSUE.model_copy(update={"id": f"{ABOUT_TO_ISSUE.id}-2", "at": later(3)})
DENIED = samples.access_decision("denied", phase="issue", at=later(1))
DECIDED_AGAIN = ABOUT_TO_ISSUE.model_copy(update={"id": f"{ABOUT_TO_ISSUE.id}/sha256:0", "at": later(2)})
DENIED_AGAIN = DENIED.model_copy(update={"id": DECIDED_AGAIN.id, "at": later(2)})
"""Another decision before the same attempt, which a server that did not answer put off."""
REQUEST, AFTER = part_id(JOB, "r"), later(2)
FIRST, SECOND = part_id(JOB, "c"), f"{part_id(JOB, 'c')}.2"


def issued(*, trusted: bool = False, at: datetime = AFTER, credential: str = FIRST, **changes: Any) -> Event:
    event = samples.issuance(at=at, search_digest="sha256:x" if trusted else None, credential=credential, **changes)
    return event.model_copy(update={"id": f"{JOB}/{event.type}/{credential}"})


def doubted(credential: str = FIRST) -> Event:
    data = {"request": REQUEST, "resource": "orders-db", "action": "write", "asked_at": "x", "expires_at": "x", "revocable": "now"}
    return build_event(EventType.CREDENTIAL_DOUBTED, JOB, at=later(3), about=credential, credential=credential, **data)


def refused(about: str = REQUEST) -> Event:
    return build_event(EventType.CREDENTIAL_REFUSED, JOB, at=AFTER, about=about, request=REQUEST, why="Vault refused")


def entries_of(*events: Event) -> list[EntryView]:
    return [EntryView(position=n, seq=n, prev="", hash="", **event.model_dump()) for n, event in enumerate(events, start=1)]


@pytest.mark.parametrize(
    "events, unanswered, trusted",
    [
        pytest.param([], {}, None, id="only asked"),
        pytest.param([ALLOWED], {}, None, id="decided at the start, which issues nothing"),
        pytest.param([ALLOWED, ABOUT_TO_ISSUE], {1: later(1)}, None, id="no answer recorded"),
        pytest.param([DENIED], {}, None, id="denied, so never asked for"),
        pytest.param(
            [samples.access_decision("needs_approval", phase="issue", at=later(1))], {1: later(1)}, None, id="approved, then no answer"
        ),
        pytest.param([DENIED, DECIDED_AGAIN], {1: later(2)}, None, id="denied, then allowed and no answer"),
        pytest.param([ABOUT_TO_ISSUE, DENIED_AGAIN], {}, None, id="put off, then denied"),
        pytest.param([ABOUT_TO_ISSUE, DECIDED_AGAIN, issued()], {}, None, id="decided twice, then issued"),
        pytest.param([ABOUT_TO_ISSUE, issued()], {}, None, id="issued"),
        pytest.param([ABOUT_TO_ISSUE, refused()], {}, None, id="refused"),
        pytest.param([ABOUT_TO_ISSUE, doubted()], {}, None, id="recorded as in doubt"),
        pytest.param([issued(), ABOUT_TO_ISSUE_AGAIN], {2: later(3)}, None, id="a second issue without an answer"),
        pytest.param([ABOUT_TO_ISSUE, refused(), ABOUT_TO_ISSUE_AGAIN], {2: later(3)}, None, id="refused, then no answer"),
        pytest.param([ABOUT_TO_ISSUE, ABOUT_TO_ISSUE_AGAIN, refused(f"{REQUEST}/2")], {1: later(1)}, None, id="no answer, then refused"),
        pytest.param([ABOUT_TO_ISSUE, ABOUT_TO_ISSUE_AGAIN, issued(credential=SECOND)], {1: later(1)}, None, id="no answer, then issued"),
        pytest.param([ABOUT_TO_ISSUE, ABOUT_TO_ISSUE_AGAIN], {1: later(1), 2: later(3)}, None, id="twice without an answer"),
        pytest.param([ABOUT_TO_ISSUE, ABOUT_TO_ISSUE_AGAIN, doubted()], {2: later(3)}, None, id="the first one recorded as in doubt"),
        pytest.param([ABOUT_TO_ISSUE, issued(trusted=True)], {}, later(2), id="issued where a search finds the next one"),
        pytest.param([issued(trusted=True), issued(at=later(4), credential=SECOND)], {}, None, id="then where no search does"),
        pytest.param([issued(trusted=True), doubted(SECOND)], {}, None, id="then recorded as in doubt"),
        pytest.param(
            [issued(trusted=True), doubted(SECOND), issued(trusted=True, at=later(5), credential=f"{FIRST}.3")],
            {},
            later(5),
            id="then searchable again",
        ),
    ],
)
def test_the_entries_of_a_job_show_which_requests_may_have_unrecorded_issues(
    events: list[Event], unanswered: dict[int, datetime], trusted: datetime | None
) -> None:
    entries = entries_of(ASKED, *events)
    found = requests_with_unrecorded_issues(entries)
    matter = needed_entry_ids(entry.id for entry in entries)
    assert requests_with_unrecorded_issues(entry for entry in entries if entry.id in {ASKED.id, *matter}) == found
    expected = [(REQUEST, unanswered, trusted)] if unanswered or trusted else []
    assert [(item.id, item.unanswered, item.trusted_since) for item in found] == expected


def test_each_request_is_evaluated_separately_with_its_narrowed_action() -> None:
    other = part_id(JOB, "r", 2)
    narrowed = samples.access_decision("allowed", number=2, phase="issue", at=later(4), facts={"action": "read"})
    narrowed = narrowed.model_copy(update={"id": f"{narrowed.id}-2"})
    first, second = requests_with_unrecorded_issues(
        entries_of(
            ASKED,
            samples.access_request(number=2),
            issued(),
            issued(credential=part_id(JOB, "c", 2), request=other),
            ABOUT_TO_ISSUE_AGAIN,
            narrowed,
        )
    )
    assert (first.id, first.newest, first.action, first.unanswered) == (REQUEST, 2, Action.WRITE, {2: later(3)})
    assert (second.id, second.newest, second.action, second.unanswered) == (other, 2, Action.READ, {2: later(4)})


@pytest.mark.parametrize(
    "later_events, latest",
    [
        pytest.param([], later(9), id="no other attempt, so until the claim is closed"),
        pytest.param([ABOUT_TO_ISSUE_AGAIN], later(3), id="decided again"),
        pytest.param([ABOUT_TO_ISSUE_AGAIN, issued(at=later(4), credential=SECOND)], later(3), id="decided again and issued"),
        pytest.param([issued(at=later(4), credential=SECOND)], later(4), id="issued without a decision of its own"),
        pytest.param([refused(f"{REQUEST}/2")], AFTER, id="refused"),
    ],
)
def test_vault_was_asked_in_an_attempt_before_anything_is_recorded_of_a_later_one(later_events: list[Event], latest: datetime) -> None:
    (found,) = requests_with_unrecorded_issues(entries_of(ASKED, ABOUT_TO_ISSUE, *later_events))
    assert found.latest_call(1, closed_at=later(9)) == latest


def test_issue_entries_without_a_recorded_request_are_left_out() -> None:
    assert requests_with_unrecorded_issues(entries_of(ABOUT_TO_ISSUE, issued(trusted=True))) == []


def test_of_very_many_issues_only_the_newest_is_read() -> None:
    many = [issued(trusted=True, at=later(number), credential=f"{FIRST}.{number}") for number in range(2, 5_000)]
    assert needed_entry_ids(event.id for event in (ABOUT_TO_ISSUE, issued(), *many)) == {many[-1].id}
