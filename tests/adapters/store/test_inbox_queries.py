"""The queries of the inbox: the order of deadlines, who can answer, earlier runs; and that no query scans a table."""

from __future__ import annotations

import shutil
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from justenough.adapters.store import Store
from justenough.adapters.store.inbox_queries import InboxFilter, InboxItem
from justenough.domain.jobs.states import RequestState
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.views import RequestView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import NOW, job_id, later, part_id
from tests.adapters.store.test_queries import query_plans

MINE = InboxFilter("e-lead", 1, mine=True)


def add_request(store: Store, number: int, *, minutes: int = 15, tier: int = 1, **job: Any) -> str:
    name = job_id(number)
    clock = samples.approval_opening(name, tier=tier, respond_by=later(60 * minutes))
    store.ledger.append(
        [samples.submission(name, **job), samples.access_request(name), samples.access_decision("needs_approval", name, tier=tier), clock]
    )
    return part_id(name, "r")


def ids(items: tuple[InboxItem, ...]) -> list[str]:
    return [one.request.id for one in items]


def view(store: Store, name: str) -> RequestView:
    found = store.requests.get(name)
    assert found is not None
    return found


def test_pending_requests_are_paged_by_deadline_and_each_is_listed_once(store: Store) -> None:
    names = [add_request(store, number, minutes=20 - number) for number in range(1, 8)]
    found: list[str] = []
    after: tuple[datetime, str] | None = None
    while page := store.inbox.items(MINE, after=after, limit=3):
        found += ids(page)
        last = page[-1].request
        assert last.expires_at is not None
        after = last.expires_at, last.id
    assert found == names[::-1]


def test_the_reviews_that_a_person_can_answer_leave_out_their_own_break_glass_their_own_job_and_higher_tiers(store: Store) -> None:
    job = job_id(1)
    opened = {
        "person": "e-oncall",
        "name": "oncall",
        "tiers": [1, 2],
        "groups": ["support-leads", "security"],
        "reason": "the shop is down",
    }
    store.ledger.append([samples.submission(job_id(2), requester="e-parent")])
    name = add_request(store, 1, requester="e-ops", parent=job_id(2))
    store.ledger.append([build_event(EventType.REVIEW_OPENED, job, at=NOW, about=name, request=name, **opened)])
    people = (("e-security", 2), ("e-security", 1), ("e-oncall", 2), ("e-ops", 2), ("e-parent", 2))
    assert [store.reviews.count_answerable(person, tier, up_to=10) for person, tier in people] == [1, 0, 0, 0, 0]


def test_requests_with_the_same_deadline_are_each_listed_once(store: Store) -> None:
    names = [add_request(store, number) for number in range(1, 6)]
    first = store.inbox.items(MINE, limit=2)
    end = first[-1].request.expires_at
    assert end is not None
    assert ids(first) + ids(store.inbox.items(MINE, after=(end, first[-1].request.id))) == names


def test_a_persons_queue_leaves_out_higher_tiers_their_own_requests_and_those_they_answered(store: Store) -> None:
    plain_, above, own, done, over = (
        add_request(store, 1),
        add_request(store, 2, tier=2),
        add_request(store, 3, requester="e-lead"),
        add_request(store, 4),
        add_request(store, 5),
    )
    store.ledger.append(
        [samples.approval_decision("pending", job_id(4), person="lead"), samples.approval_decision("approved", job_id(5), person="else")]
    )
    assert ids(store.inbox.items(MINE)) == [plain_]
    assert sorted(ids(store.inbox.items(MINE._replace(mine=False)))) == sorted([above, own, done])
    assert over not in ids(store.inbox.items(MINE._replace(mine=False)))
    assert ids(store.inbox.items(MINE._replace(tier=2))) == [plain_, above]
    assert sorted(ids(store.inbox.items(MINE._replace(mine=None)))) == sorted([plain_, above, own, done])


def test_a_request_that_escalated_is_again_in_the_queue_of_people_who_answered_at_a_tier_below(store: Store) -> None:
    again, answered, withdrawn = (add_request(store, number) for number in range(1, 4))
    for number, tier in ((1, 1), (2, 2), (3, 1)):
        store.ledger.append([samples.approval_decision("pending", job_id(number), tier=tier)])
    taken_back = {"request": withdrawn, "person": "e-lead", "name": "lead", "reason": "no", "signed": None, "verdict": "pending"}
    store.ledger.append([build_event(EventType.APPROVAL_WITHDRAWN, job_id(3), at=NOW, about=withdrawn, **taken_back)])
    assert ids(store.inbox.items(MINE._replace(tier=2))) == []
    store.ledger.append([samples.approval_opening(job_id(number), tier=2, escalated=True) for number in range(1, 4)])
    assert ids(store.inbox.items(MINE._replace(tier=2))) == [again]
    assert sorted(ids(store.inbox.items(MINE._replace(tier=2, mine=False)))) == sorted([answered, withdrawn])


def test_a_persons_queue_leaves_out_requests_of_jobs_that_descend_from_theirs_or_that_they_had_a_schedule_run(store: Store) -> None:
    by_console: dict[str, Any] = {"requester": "e-console", "requester_name": "schedule:nightly"}
    order: dict[str, Any] = {**samples.SIGNED, "statement": {"asked_by": "e-lead"}}
    store.ledger.append(
        [
            samples.submission(job_id(1), requester="e-lead"),
            samples.submission(job_id(2), parent=job_id(1)),
            samples.submission(job_id(3), order=order, **by_console),
        ]
    )
    child, own, grandchild = add_request(store, 4, parent=job_id(2)), add_request(store, 5, order=order, **by_console), job_id(3)
    other, of_other = add_request(store, 6, **by_console), add_request(store, 7, parent=job_id(6))
    below = add_request(store, 8, parent=grandchild)
    assert ids(store.inbox.items(MINE)) == [other, of_other]
    assert ids(store.inbox.items(MINE._replace(mine=False))) == [child, own, below]
    assert store.inbox.count(MINE) == 2


def test_the_count_of_pending_requests_stops_at_its_limit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert store.inbox.count(MINE) == 0
    for number in range(1, 5):
        add_request(store, number, tier=1 if number < 4 else 2)
    assert (store.inbox.count(MINE), store.inbox.count(MINE._replace(tier=2))) == (3, 4)
    monkeypatch.setattr("justenough.adapters.store.inbox_queries.MAX_COUNT", 2)
    assert store.inbox.count(MINE) == 2


def test_a_pending_request_names_its_requester_and_its_agent(store: Store) -> None:
    add_request(store, 1)
    add_request(store, 2, agent=None)
    assert [(one.requester_id, one.agent) for one in store.inbox.items(MINE)] == [("e-ops", "refund-agent 1.4"), ("e-ops", "")]


@pytest.mark.parametrize(
    "asked, found",
    [
        ({"job_name": "other"}, [2]),
        ({"resource": "orders-db"}, [1, 2]),
        ({"action": "read"}, []),
        ({"tier_now": 2}, []),
        ({"only": "e-sam"}, [2]),
    ],
)
def test_pending_requests_can_be_filtered(store: Store, asked: dict[str, Any], found: list[int]) -> None:
    names = {1: add_request(store, 1), 2: add_request(store, 2, name="other", requester="e-sam")}
    assert ids(store.inbox.items(MINE._replace(**asked))) == [names[number] for number in found]
    assert store.inbox.items(MINE._replace(job_name="a\0b")) == ()


def test_requests_that_a_person_answered_are_listed_newest_first(store: Store) -> None:
    names = [add_request(store, number) for number in range(1, 4)]
    for number in (2, 3, 1):
        store.ledger.append([samples.approval_decision("approved", job_id(number), person="lead", at=later(number))])
    store.ledger.append([samples.approval_decision("approved", job_id(3), person="chief", at=later(90))])
    assert [one.id for one in store.inbox.list_answered_by("e-lead", 2)] == names[:0:-1]
    assert store.inbox.list_answered_by("e-nobody", 5) == ()


def test_earlier_decisions_are_of_the_same_kind_and_older_than_the_request(store: Store) -> None:
    before, pending, other, now, after = (
        add_request(store, 1),
        add_request(store, 2),
        add_request(store, 3, name="other"),
        add_request(store, 4),
        add_request(store, 5),
    )
    for number in (1, 3, 5):
        store.ledger.append([samples.approval_decision("approved", job_id(number), person="lead")])
    assert [one.id for one in store.inbox.earlier_decisions(view(store, now), 5)] == [before]
    earlier = store.inbox.last_approved(view(store, now))
    assert earlier is not None
    assert (earlier.id, earlier.state) == (before, RequestState.APPROVED)
    assert [one.id for one in store.inbox.earlier_decisions(view(store, after), 5)] == [before]
    assert store.inbox.last_approved(view(store, other)) is None
    assert store.inbox.earlier_decisions(view(store, pending), 0) == ()


@pytest.mark.parametrize("verdict, compared", [(None, 2), ("justified", 2), ("unjustified", 1)])
def test_a_break_glass_judged_unjustified_is_not_the_last_approval(store: Store, verdict: str | None, compared: int) -> None:
    names = {number: add_request(store, number) for number in (1, 2, 3)}
    store.ledger.append([samples.approval_decision("approved", job_id(1), person="lead", at=later(10))])
    review: dict[str, Any] = {
        "request": names[2],
        "person": "e-oncall",
        "name": "oncall",
        "tiers": [1],
        "groups": ["leads"],
        "reason": "it burns",
    }
    glass = samples.approval_decision("approved", job_id(2), person="oncall", decision="break_glass", at=later(20))
    store.ledger.append([glass, build_event(EventType.REVIEW_OPENED, job_id(2), at=later(20), about=names[2], **review)])
    if verdict:
        answer: dict[str, Any] = {
            "request": names[2],
            "person": "e-lead",
            "name": "lead",
            "verdict": verdict,
            "reason": "I looked",
            "signed": {},
        }
        store.ledger.append([build_event(EventType.REVIEW_ANSWERED, job_id(2), at=later(30), about=names[2], **answer)])
    found = store.inbox.last_approved(view(store, names[3]))
    assert found is not None
    assert (found.id, found.decided_at) == (names[compared], later(10 * compared))
    assert (found.break_glass is not None) == (compared == 2)


def test_requests_are_found_by_their_ids_in_the_order_given(store: Store) -> None:
    one, two = add_request(store, 1), add_request(store, 2)
    assert list(store.requests.by_ids([two, "r-none", one, two])) == [two, one]
    assert store.requests.by_ids([]) == {}


def test_no_inbox_query_scans_a_table(ready_file: Path, tmp_path: Path) -> None:
    known = {"id": "r", "job_id": job_id(1), "job_name": "triage", "resource": "orders", "title": "Orders", "action": "write", "ttl": 1}
    other = {
        "reason": "",
        "optional": False,
        "sensitivity": "internal",
        "revocable": "now",
        "state": "pending",
        "tier": 1,
        "current_tier": 1,
    }
    request = RequestView.model_validate({**known, **other, "created_at": NOW})

    def ask(store: Store) -> None:
        store.inbox.count(MINE)
        store.inbox.items(MINE, after=(NOW, "r"), limit=5)
        store.inbox.items(MINE._replace(mine=False), limit=5)
        store.inbox.list_answered_by("e-lead", limit=5)
        store.inbox.earlier_decisions(request, limit=5)
        store.inbox.last_approved(request)
        store.delegations.current_of("e-lead", now=NOW, limit=5)

    url = f"sqlite:///{shutil.copy(ready_file, tmp_path / 'store.db')}"
    with closing(Store(url)) as store:
        # Nothing more is read about a job that the store does not have.
        store.ledger.append([samples.submission(job_id(1))])
    found = query_plans(url, ask)
    assert found
    # A chain has at most as many rows as a job may have ancestors, and the job.
    assert not [row for row in found if "SCAN" in row and "INDEX" not in row and "SCAN chain" not in row], found
