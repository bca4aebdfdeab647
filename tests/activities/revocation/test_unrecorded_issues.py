"""What a job's entries tell of credentials that Vault may have issued without anybody recording them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from activities.revocation.in_doubt import requests_with_unrecorded_issues
from justenough.domain.jobs.states import Action
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.readmodel.views import EntryView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, later, part_id

ASKED = samples.access_request()
ALLOWED = samples.access_decision("allowed")
ABOUT_TO_ISSUE = samples.access_decision("allowed", phase="issue", at=later(1))
REQUEST, AFTER = part_id(JOB, "r"), later(2)


def issued(*, trusted: bool = False, at: datetime = AFTER, **changes: Any) -> Event:
    return samples.issuance(at=at, search_digest="sha256:x" if trusted else None, **changes)


def doubted() -> Event:
    data = {"request": REQUEST, "resource": "orders-db", "action": "write", "asked_at": "x", "expires_at": "x", "revocable": "now"}
    return samples.credential_event(EventType.CREDENTIAL_DOUBTED, number=2, at=later(3), **data)


def refused() -> Event:
    data = {"request": REQUEST, "why": "Vault refused"}
    return ASKED.model_copy(update={"type": EventType.CREDENTIAL_REFUSED, "data": data, "at": AFTER})


def entries_of(*events: Event) -> list[EntryView]:
    return [EntryView(position=n, seq=n, prev="", hash="", **event.model_dump()) for n, event in enumerate(events, start=1)]


@pytest.mark.parametrize(
    "events, unanswered, trusted",
    [
        pytest.param([], None, None, id="only asked"),
        pytest.param([ALLOWED], None, None, id="decided at the start, which issues nothing"),
        pytest.param([ALLOWED, ABOUT_TO_ISSUE], later(1), None, id="no answer recorded"),
        pytest.param([samples.access_decision("denied", phase="issue", at=later(1))], None, None, id="denied, so never asked for"),
        pytest.param(
            [samples.access_decision("needs_approval", phase="issue", at=later(1))], later(1), None, id="approved, then no answer"
        ),
        pytest.param([ABOUT_TO_ISSUE, issued()], None, None, id="issued"),
        pytest.param([ABOUT_TO_ISSUE, refused()], None, None, id="refused"),
        pytest.param([ABOUT_TO_ISSUE, doubted()], None, None, id="recorded as in doubt"),
        pytest.param([issued(), ABOUT_TO_ISSUE], later(1), None, id="a second issue without an answer"),
        pytest.param([ABOUT_TO_ISSUE, issued(trusted=True)], None, later(2), id="issued where a search finds the next one"),
        pytest.param([issued(trusted=True), issued(at=later(4))], None, None, id="then where no search does"),
        pytest.param([issued(trusted=True), doubted()], None, None, id="then recorded as in doubt"),
        pytest.param([issued(trusted=True), doubted(), issued(trusted=True, at=later(5))], None, later(5), id="then searchable again"),
    ],
)
def test_the_entries_of_a_job_show_which_requests_may_have_unrecorded_issues(
    events: list[Event], unanswered: datetime | None, trusted: datetime | None
) -> None:
    found = requests_with_unrecorded_issues(entries_of(ASKED, *events))
    expected = [(REQUEST, unanswered, trusted)] if unanswered or trusted else []
    assert [(item.id, item.unanswered_since, item.trusted_since) for item in found] == expected


def test_each_request_is_evaluated_separately_with_its_narrowed_action() -> None:
    other = part_id(JOB, "r", 2)
    narrowed = samples.access_decision("allowed", number=2, phase="issue", at=later(4), facts={"action": "read"})
    first, second = requests_with_unrecorded_issues(
        entries_of(ASKED, samples.access_request(number=2), issued(), issued(number=2, request=other), ABOUT_TO_ISSUE, narrowed)
    )
    assert (first.id, first.issued, first.action, first.unanswered_since) == (REQUEST, 1, Action.WRITE, later(1))
    assert (second.id, second.issued, second.action, second.unanswered_since) == (other, 1, Action.READ, later(4))


def test_issue_entries_without_a_recorded_request_are_left_out() -> None:
    assert requests_with_unrecorded_issues(entries_of(ABOUT_TO_ISSUE, issued(trusted=True))) == []
