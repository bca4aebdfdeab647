"""Reading the ledger from its newest entry, and finding entries by a text."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from itertools import product
from typing import Any

import pytest

from justenough.adapters.store import Store, ledger_repository
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType, build_event
from justenough.domain.readmodel.views import EntryView, Page
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, job_id, later, part_id

USES = (EventType.CREDENTIAL_ISSUED, EventType.CREDENTIAL_CONFIRMED)


@pytest.fixture(scope="module")
def filled(shared_store: Store) -> Store:
    """Five jobs whose facts are mixed, some of them recorded later than they happened, many in one moment."""
    for number in range(5):
        shared_store.ledger.append(
            [samples.submission(job_id(number), at=later(10 * number)), samples.job_start(job_id(number), at=later(10 * number + 1))]
        )
    for number in range(5):
        shared_store.ledger.append(
            [
                samples.issuance(job_id(number), at=later(20)),
                samples.job_refusal("x", job=UNATTRIBUTED_CHAIN, at=later(20), about=str(number)),
            ]
        )
    shared_store.ledger.append([samples.credential_confirmation(job_id(number), at=later(60 - 10 * number)) for number in range(5)])
    shared_store.ledger.append([samples.job_end(job=job_id(number), at=later(70)) for number in range(5)])
    return shared_store


def all_entries(read: Callable[[int | None], Page[EntryView]]) -> list[EntryView]:
    found: list[EntryView] = []
    before: int | None = None
    while True:
        page = read(before)
        found += page.items
        if page.next is None:
            return found
        before = int(page.next)


@pytest.mark.parametrize("limit", [4, 100])
@pytest.mark.parametrize("types", [(), USES, (EventType.JOB_REFUSED,), tuple(EventType)])
@pytest.mark.parametrize("since,until", list(product([None, later(20)], [None, later(60)])))
def test_each_ledger_entry_is_read_once_newest_first(
    filled: Store, limit: int, types: tuple[EventType, ...], since: datetime | None, until: datetime | None
) -> None:
    found = all_entries(
        lambda before: filled.ledger.entries_newest_first(types=types, since=since, until=until, before=before, limit=limit)
    )
    wanted = filled.ledger.entries(types=types, since=since, until=until, limit=1000).items
    assert found == sorted(wanted, key=lambda entry: (entry.at, entry.position), reverse=True)


@pytest.mark.parametrize("types", [(), USES])
@pytest.mark.parametrize("since,until", [(later(20), None), (None, later(60)), (later(1), later(55))])
def test_a_wide_period_is_read_like_a_narrow_one(
    filled: Store, monkeypatch: pytest.MonkeyPatch, types: tuple[EventType, ...], since: datetime | None, until: datetime | None
) -> None:
    def every(limit: int) -> list[EntryView]:
        return all_entries(lambda after: filled.ledger.entries(types=types, since=since, until=until, after=after or 0, limit=limit))

    narrow = [every(limit) for limit in (1, 4, 100)]
    monkeypatch.setattr(ledger_repository, "MAX_NARROW_ENTRIES", 2)
    assert [every(limit) for limit in (1, 4, 100)] == narrow
    assert narrow[0] == narrow[1] == narrow[2]
    assert narrow[0] == sorted(narrow[0], key=lambda entry: entry.position)


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("job", [job_id(2), UNATTRIBUTED_CHAIN, "j-dev-unknown"])
@pytest.mark.parametrize("types", [(), USES])
def test_the_entries_of_one_job_are_read_in_reverse_order_of_its_chain(
    filled: Store, limit: int, job: str, types: tuple[EventType, ...]
) -> None:
    found = all_entries(lambda before: filled.ledger.entries_newest_first(job=job, types=types, before=before, limit=limit))
    assert found == list(filled.ledger.entries(job=job, types=types, limit=1000).items)[::-1]


def test_reading_can_begin_at_the_position_of_another_jobs_entry(filled: Store) -> None:
    whole = filled.ledger.entries_newest_first(job=job_id(2)).items
    middle = whole[2].position - 1
    assert [entry.position for entry in filled.ledger.entries_newest_first(job=job_id(2), before=middle).items] == [
        entry.position for entry in whole if entry.position < middle
    ]


@pytest.mark.parametrize("before,count", [(0, 0), (-5, 0), (1, 0), (10**15, 30)])
def test_reading_can_begin_at_any_position(filled: Store, before: int, count: int) -> None:
    assert len(filled.ledger.entries_newest_first(before=before).items) == count


def test_of_many_entries_about_one_thing_the_newest_are_read_in_order(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_repository, "MAX_ENTRIES_PER_TYPE", 2)
    credential, kind = part_id(JOB, "c"), EventType.CREDENTIAL_RENEWED
    # As text, 10 is less than 9.
    renewals = [
        build_event(kind, JOB, at=later(number), about=f"{credential}/{number}", credential=credential, expires_at=later(900).isoformat())
        for number in (8, 9, 10)
    ]
    store.ledger.append([samples.submission(), samples.access_request(), samples.issuance(), *renewals])

    assert [entry.id for entry in store.ledger.entries_about(JOB, (kind,), credential)] == [event.id for event in renewals[1:]]


def test_ids_are_found_by_their_whole_text_and_by_their_beginning(store: Store) -> None:
    store.ledger.append(
        [
            samples.submission(),
            samples.access_request(),
            samples.access_request(number=2),
            samples.issuance(),
            samples.submission("j-dev-01zz0000000000000000000000", name="other"),
        ]
    )

    def named(text: str) -> list[tuple[str, str, str]]:
        return [(found.kind, found.id, found.name) for found in store.search.find(text, installation="dev")]

    assert named(JOB) == [("job", JOB, "refund-triage")]
    assert named(f"  {JOB[:12]} ") == [("job", JOB, "refund-triage")]
    assert named(JOB.removeprefix("j-dev-").upper()) == [("job", JOB, "refund-triage")]
    assert [name for _, name, _ in named("j-dev-01")] == [JOB, "j-dev-01zz0000000000000000000000"]
    assert named(part_id(JOB, "r", 2)) == [("request", part_id(JOB, "r", 2), "refund-triage")]
    assert [name for _, name, _ in named(part_id(JOB, "r")[:-2])] == [part_id(JOB, "r"), part_id(JOB, "r", 2)]
    assert named(part_id(JOB, "c")) == [("credential", part_id(JOB, "c"), "refund-triage")]
    entry = store.ledger.entries(job=JOB).items[1]
    assert named(entry.id) == [("entry", entry.id, "refund-triage")]
    assert named(str(entry.position))[0] == ("entry", entry.id, "refund-triage")


@pytest.mark.parametrize("text", ["", "   ", "\x00", "%", "j-", "r-dev-nothing", "☃", "x" * 5000, "9" * 400, "'; --", "\U0010ffff", "٣"])
def test_a_text_that_names_nothing_finds_nothing(store: Store, text: str) -> None:
    assert store.search.find(text, installation="dev") == ()


def test_an_ambiguous_text_finds_only_the_first_matches(store: Store) -> None:
    store.ledger.append([samples.submission(job_id(number)) for number in range(30)])
    found: list[Any] = list(store.search.find("j-dev-", installation="dev"))
    assert [one.id for one in found] == [job_id(number) for number in range(10)]


def test_an_entry_of_no_job_is_found_too(store: Store) -> None:
    (entry,) = store.ledger.append([samples.job_refusal("x", job=UNATTRIBUTED_CHAIN)])
    assert [(found.kind, found.job, found.name) for found in store.search.find(entry.id, installation="dev")] == [
        ("entry", UNATTRIBUTED_CHAIN, "")
    ]


def test_new_entries_are_read_once_in_order_and_in_parts_after_a_long_absence(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [entry.id for entry in filled.ledger.entries(types=USES, limit=100).items]
    monkeypatch.setattr(ledger_repository, "MAX_NEWS_SPAN", 3)
    found, position, newest = list[str](), 0, filled.ledger.head().position
    while position < newest:
        entries, until = filled.ledger.news(position, types=USES)
        assert position < until <= position + 3
        found, position = [*found, *(entry.id for entry in entries)], until
    assert found == wanted
    assert filled.ledger.news(position, types=USES) == ((), position)
