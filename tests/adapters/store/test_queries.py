"""Lists: filters, pages, ties, and that no list has to scan."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from justenough.adapters.store import LedgerSpan, Store, repository
from justenough.adapters.store.engine import read_transaction
from justenough.domain.core.errors import InvalidInput
from justenough.domain.jobs.states import CredentialState, JobState, RequestState, RevocationState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.dashboard import JobFilter
from justenough.domain.readmodel.views import Page
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, job_id, later, part_id
from tests.support.claims import claim_job


def all_ids(read: Callable[[str | None], Page[Any]]) -> list[str]:
    """Every id of a list, page by page."""
    found: list[str] = []
    cursor = None
    while True:
        page = read(cursor)
        found += [item.id for item in page.items]
        if (cursor := page.next) is None:
            return found


def test_jobs_are_listed_newest_first_and_once_each_even_if_others_are_added(store: Store) -> None:
    store.ledger.append([samples.submission(job_id(number)) for number in range(10, 17)])
    first = store.jobs.list(limit=3)
    store.ledger.append([samples.submission(job_id(99))])
    rest = all_ids(lambda cursor: store.jobs.list(limit=3, cursor=cursor or first.next))
    assert [job.id for job in first.items] + rest == [job_id(number) for number in range(16, 9, -1)]


def test_jobs_can_be_listed_oldest_first_for_everyone_with_the_same_login_name(store: Store) -> None:
    """A user who was deleted and created again has another entity id."""
    people = ("e-1", "e-2", "e-1", "e-2", "e-2")
    store.ledger.append(
        [samples.submission(job_id(number), requester=person, requester_name="zelda") for number, person in enumerate(people, start=10)]
    )
    for requester in (None, "zelda"):
        first = store.jobs.list(requester=requester, oldest_first=True, limit=2)
        store.ledger.append([samples.submission(job_id(90 if requester else 80), requester="e-1", requester_name="zelda")])
        rest = all_ids(lambda cursor: store.jobs.list(requester=requester, oldest_first=True, limit=2, cursor=cursor or first.next))  # noqa: B023 - used at once
        assert [job.id for job in first.items] + rest == [job_id(number) for number in (*range(10, 15), 80, *([90] if requester else []))]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_rows_created_at_the_same_moment_are_each_listed_once(store: Store, limit: int) -> None:
    """Requests and credentials of one job are often made in the same moment."""
    store.ledger.append(
        [
            samples.submission(),
            *(samples.access_request(number=number) for number in range(1, 8)),
            *(samples.issuance(number=number) for number in range(1, 8)),
        ]
    )
    assert sorted(all_ids(lambda cursor: store.requests.list(limit=limit, cursor=cursor))) == [
        part_id(JOB, "r", number) for number in range(1, 8)
    ]
    assert sorted(all_ids(lambda cursor: store.credentials.list(limit=limit, cursor=cursor))) == [
        part_id(JOB, "c", number) for number in range(1, 8)
    ]


def test_the_last_page_has_no_next(store: Store) -> None:
    store.ledger.append([samples.submission(job_id(number)) for number in range(4)])
    assert store.jobs.list(limit=4).next is None
    assert store.jobs.list(limit=3).next is not None
    assert store.jobs.list(state=JobState.LOST).items == ()


def test_jobs_are_filtered_by_any_combination(store: Store) -> None:
    kinds = list(product(["pending", "running"], ["prod", "test"], ["e-ops", "e-sam"]))
    for number, (kind, place, person) in enumerate(kinds):
        facts = [samples.submission(job_id(number), environment=place, requester=person)]
        store.ledger.append(facts if kind == "pending" else [*facts, samples.job_start(job_id(number))])
    for wanted in product([None, "pending", "running"], [None, "prod"], [None, "e-sam"]):
        state, environment, requester = wanted
        page = store.jobs.list(state=JobState(state) if state else None, environment=environment, requester_id=requester)
        expected = [job_id(n) for n, row in enumerate(kinds) if all(want in {None, has} for want, has in zip(wanted, row, strict=True))]
        assert [job.id for job in page.items] == expected[::-1]


def test_jobs_are_filtered_by_login_name_and_job_name(store: Store) -> None:
    kinds = list(
        product(["pending", "running"], ["prod", "test"], [("e-ops", "ops"), ("e-new", "ops"), ("e-ops", "trigger:t")], ["a", "b"])
    )
    for number, (kind, place, (person, login), name) in enumerate(kinds):
        facts = [samples.submission(job_id(number), environment=place, requester=person, requester_name=login, name=name)]
        store.ledger.append(facts if kind == "pending" else [*facts, samples.job_start(job_id(number))])
    for wanted_state, environment, requester, called in product(
        [None, "running"], [None, "prod"], ["ops", "trigger:t", "nobody", None], [None, "b"]
    ):
        expected = [
            job_id(number)
            for number, row in enumerate(kinds)
            if all(
                want in {None, has}
                for want, has in zip((wanted_state, environment, requester, called), (row[0], row[1], row[2][1], row[3]), strict=True)
            )
        ]
        wanted = {
            "state": JobState(wanted_state) if wanted_state else None,
            "environment": environment,
            "requester": requester,
            "name": called,
        }
        for limit in (1, 3, 100):
            found = all_ids(lambda cursor, wanted=wanted, limit=limit: store.jobs.list(**wanted, limit=limit, cursor=cursor))  # type: ignore[misc]
            assert found == expected[::-1]
    assert [job.id for job in store.jobs.list(requester_id="e-new", requester="ops", name="a", state=JobState.RUNNING).items] == [
        job_id(number) for number, row in reversed(list(enumerate(kinds))) if row[0] == "running" and row[2][0] == "e-new" and row[3] == "a"
    ]


def test_credentials_are_filtered_by_any_combination(store: Store) -> None:
    kinds = list(product(["orders-db", "refunds-db"], ["read", "write"], ["issued", "confirmed"]))
    store.ledger.append([samples.submission()])
    for number, (resource, action, state) in enumerate(kinds, start=1):
        store.ledger.append([samples.issuance(number=number, at=later(number), resource=resource, action=action)])
        store.ledger.append([samples.credential_confirmation(number=number)] if state == "confirmed" else [])
    for live, *wanted in product([False, True], [None, "orders-db"], [None, "write"], [None, "confirmed"]):
        which, how, now = wanted
        expected = [
            part_id(JOB, "c", number)
            for number, row in enumerate(kinds, start=1)
            if all(want in {None, has} for want, has in zip(wanted, row, strict=True)) and not (live and row[2] == "confirmed")
        ]
        found = store.credentials.list(live=live, resource=which, action=how, state=CredentialState(now) if now else None)
        assert [view.id for view in found.items] == expected[::-1]


def test_requests_are_filtered_by_state_job_and_requester(store: Store) -> None:
    store.ledger.append(
        [
            samples.submission(),
            samples.access_request(at=later(1)),
            samples.access_request(number=2, at=later(2)),
            samples.access_decision("allowed", number=2),
        ]
    )
    store.ledger.append([samples.submission(job_id(2), requester="e-sam"), samples.access_request(job_id(2), at=later(3))])
    assert [view.id for view in store.requests.list().items] == [part_id(job_id(2), "r"), part_id(JOB, "r", 2), part_id(JOB, "r")]
    assert [view.id for view in store.requests.list(state=RequestState.PENDING, job=JOB).items] == [part_id(JOB, "r")]
    assert [view.job_id for view in store.requests.list(requester_id="e-sam").items] == [job_id(2)]


def test_live_credentials_are_those_not_shown_to_be_dead(store: Store) -> None:
    store.ledger.append(
        [
            samples.submission(),
            samples.issuance(at=later(1)),
            samples.issuance(number=2, at=later(2)),
            samples.credential_confirmation(number=2),
        ]
    )
    store.ledger.append([samples.submission(job_id(2)), samples.issuance(job_id(2), at=later(3))])
    assert [view.id for view in store.credentials.list(live=True).items] == [part_id(job_id(2), "c"), part_id(JOB, "c")]
    assert [view.id for view in store.credentials.list(job=JOB).items] == [part_id(JOB, "c", 2), part_id(JOB, "c")]
    assert [view.id for view in store.credentials.live_of(JOB)] == [part_id(JOB, "c")]


def test_open_jobs_are_those_that_run_or_are_not_proved_clean(store: Store) -> None:
    names = ["running", "clean", "none", "unproved", "overdue", "young"]
    running, clean, none, unproved, late, young = (job_id(number) for number in range(len(names)))
    store.ledger.append(
        [samples.submission(job, at=later(100 if job == young else 0)) for job in (running, clean, none, unproved, late, young)]
    )
    store.ledger.append(
        [
            samples.issuance(clean),
            samples.credential_confirmation(clean),
            samples.revocation_proof(clean),
            samples.job_end(job=clean),
            samples.job_end(job=none),
        ]
    )
    store.ledger.append(
        [
            samples.issuance(unproved),
            samples.job_end(job=unproved),
            samples.issuance(late),
            samples.job_end(job=late),
            samples.overdue_revocation(late),
        ]
    )
    assert store.jobs.open(later(50)) == (running, unproved, late)
    assert store.jobs.open(later(200)) == (running, unproved, late, young)


def test_unstarted_jobs_have_no_claim_no_request_and_no_end(store: Store) -> None:
    fresh, claimed, asking, over, young = (job_id(number) for number in range(5))
    store.ledger.append([samples.submission(job, at=later(100 if job == young else 0)) for job in (fresh, claimed, asking, over, young)])
    claim_job(store, claimed, run="run", owner="a worker", now=later(1))
    store.ledger.append([samples.access_request(asking), samples.job_end(job=over)])
    assert store.jobs.list_unstarted(later(50)) == (fresh,)
    assert store.jobs.list_unstarted(later(200)) == (fresh, young)


def test_jobs_whose_revocation_is_overdue_are_found_without_looking_at_the_others(store: Store, ready_file: object) -> None:
    late, clean = job_id(1), job_id(2)
    for job in (late, clean):
        store.ledger.append([samples.submission(job), samples.issuance(job), samples.job_end(job=job)])
    store.ledger.append([samples.overdue_revocation(late), samples.credential_confirmation(clean), samples.revocation_proof(clean)])
    assert [job.id for job in store.jobs.list(revocation=RevocationState.OVERDUE).items] == [late]
    (plan,) = query_plans(f"sqlite:///{ready_file}", lambda one: one.jobs.list(revocation=RevocationState.OVERDUE, limit=50))
    assert "(revocation_state=?)" in plan


def cursor_of(text: str) -> str:
    """A cursor that is well-formed up to what it says."""
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


NOT_OURS = ["", "x", "☃", "bnVsbA", "W10", "WyJhIiwiYiIsImMiXQ", "WzFd", "W1tbXV1d" * 9, "\x00"]
NO_TIME = [cursor_of(f'["{time}", "r"]') for time in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")]
NO_TEXT = [cursor_of(f'["2026-11-25T09:00:00+00:00", "{text}"]') for text in (r"\ud800", r"\u0000")]


@pytest.mark.parametrize("cursor", [*NOT_OURS, *NO_TEXT, *NO_TIME])
def test_an_invalid_cursor_is_rejected(store: Store, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        store.jobs.list(cursor=cursor)
    with pytest.raises(InvalidInput, match="cursor"):
        store.requests.list(cursor=cursor)


def test_a_cursor_of_another_list_is_rejected(store: Store) -> None:
    store.ledger.append([samples.submission(), samples.submission(job_id(1)), samples.access_request(), samples.access_request(number=2)])
    with pytest.raises(InvalidInput, match="cursor"):
        store.requests.list(cursor=store.jobs.list(limit=1).next)


@pytest.mark.parametrize("value", ["\x00", "'", "x" * 5000, "\u2028"])
def test_any_text_can_be_a_filter_value(store: Store, value: str) -> None:
    assert store.jobs.list(environment=value, requester_id=value).items == ()
    # Forms send these.
    assert (store.jobs.get(value), store.credentials.get(value)) == (None, None)
    assert store.attention.items(JobFilter(team=value), now=NOW, worker_silence=timedelta(minutes=1)) == ()


def test_jobs_can_be_filtered_by_the_beginning_of_their_id_and_by_a_start_time(store: Store) -> None:
    jobs = [job_id(number) for number in (1, 2, 31)]
    store.ledger.append([samples.submission(job) for job in jobs])
    store.ledger.append([samples.access_request(number=number) for number in (1, 2)])
    store.ledger.append([samples.issuance(number=number) for number in (1, 2)])

    assert [job.id for job in store.jobs.list(beginning=jobs[0]).items] == [jobs[0]]
    assert [job.id for job in store.jobs.list(beginning="j-").items] == jobs[::-1]
    assert [job.id for job in store.jobs.list(first=jobs[1]).items] == [jobs[2], jobs[1]]
    assert store.jobs.list(beginning="j\0%").items == ()
    assert [view.id for view in store.requests.list(beginning=part_id(JOB, "r", 2)).items] == [part_id(JOB, "r", 2)]
    assert [view.id for view in store.credentials.list(beginning=part_id(JOB, "c", 1)).items] == [part_id(JOB, "c", 1)]
    assert store.jobs.with_request_for([JOB], "orders-db") == {JOB}
    assert store.jobs.with_request_for([JOB], "nowhere") == frozenset()


def test_a_beginning_that_many_ids_share_leaves_out_none(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "MAX_PAGE_SIZE", 2)
    others, theirs = [job_id(number) for number in range(3)], job_id(3)
    store.ledger.append([*map(samples.submission, others), samples.submission(theirs, requester="e-sam")])
    store.ledger.append([samples.access_request(theirs, number=number) for number in range(1, 5)])
    store.ledger.append([samples.issuance(theirs, number=number) for number in range(1, 5)])
    store.ledger.append([samples.credential_confirmation(theirs, number=number) for number in range(1, 4)])

    assert all_ids(lambda cursor: store.jobs.list(beginning="j-", cursor=cursor)) == [theirs, *others[::-1]]
    assert [job.id for job in store.jobs.list(beginning="j-", requester_id="e-sam").items] == [theirs]
    for kind, read in (("r", store.requests.list), ("c", store.credentials.list)):
        parts = [part_id(theirs, kind, number) for number in range(1, 5)]
        assert sorted(all_ids(lambda cursor, read=read, kind=kind: read(beginning=f"{kind}-", cursor=cursor))) == parts  # type: ignore[misc]
    alive = store.credentials.list(beginning=part_id(theirs, "c", 1)[:-2], live=True)
    assert [credential.id for credential in alive.items] == [part_id(theirs, "c", 4)]


def query_plans(url: str, ask: Callable[[Store], object]) -> list[str]:
    """SQLite's plan of each statement that a query runs."""
    asked: list[tuple[str, Any]] = []
    with closing(Store(url)) as store:
        event.listen(store._engine, "before_cursor_execute", lambda *args: asked.append((args[2], args[3])))
        ask(store)
        with read_transaction(store._engine) as connection:
            raw = connection.connection.cursor()
            statements = [(text, values) for text, values in asked if text.startswith("SELECT")]
            return [str(row) for text, values in statements for row in raw.execute(f"EXPLAIN QUERY PLAN {text}", values).fetchall()]


def test_filters_by_the_beginning_of_an_id_and_by_time_use_an_index(ready_file: object) -> None:
    def ask(store: Store) -> None:
        store.jobs.list(beginning="j-dev-0", limit=50)
        store.jobs.list(first="j-dev-0", limit=50)
        store.requests.list(beginning="r-dev-0", limit=50)
        store.credentials.list(beginning="c-dev-0", limit=50)
        store.jobs.with_request_for([JOB], "orders-db")
        store.credentials.count_active([JOB])
        store.search.credentials([part_id(JOB, "c")])
        store.search.resources_of([JOB])
        store.claims.get(JOB)

    found = query_plans(f"sqlite:///{ready_file}", ask)
    assert [plan for plan in found if re.search(r"SCAN (jobs|requests|credentials|approvals|ledger)", plan)] == []
    assert sum("PRIMARY KEY" in plan or "autoindex" in plan for plan in found) >= 4


def test_certain_positions_and_jobs_are_read_without_the_index_by_type(ready_file: Path, tmp_path: Path) -> None:
    """Sessions, webhooks, reports, the search and its index do so: by type, each would read every such entry of the ledger."""

    def ask(store: Store) -> None:
        store.ledger.append([samples.submission()])
        for types in (list(EventType), [EventType.JOB_SUBMITTED]):
            store.ledger.news(0, types=types)
            store.outbox.next_batch(types, after=0, limit=10)
            assert list(store.ledger.stored_entries(types, LedgerSpan(1, 10)))
            assert store.ledger.newest_of_jobs([JOB], types, limit=10)
        store.search.index()
        store.search.find_handle("v-token-1")

    found = query_plans(f"sqlite:///{shutil.copy(ready_file, tmp_path / 'store.db')}", ask)
    assert [plan for plan in found if "ix_ledger" in plan] == []
    assert sum("SEARCH ledger USING INTEGER PRIMARY KEY (rowid" in plan for plan in found) >= 8
    assert sum("SEARCH ledger USING INDEX sqlite_autoindex_ledger_2 (job=?)" in plan for plan in found) == 2


@pytest.mark.parametrize("state,environment,requester", list(product([None, "running"], [None, "prod"], [None, "e-ops"])))
def test_no_list_sorts_or_looks_at_rows_that_it_does_not_show(
    ready_file: object, state: str | None, environment: str | None, requester: str | None
) -> None:
    """This keeps a list of a million jobs quick; the benchmark measures how quick."""
    url = f"sqlite:///{ready_file}"
    chosen = [name for name, value in (("requester_id", requester), ("environment", environment), ("state", state)) if value]

    def ask(store: Store) -> None:
        store.jobs.list(state=JobState(state) if state else None, environment=environment, requester_id=requester, limit=50)
        store.requests.list(state=RequestState.PENDING if state else None, requester_id=requester, limit=50)
        store.credentials.list(live=True, limit=50)

    found = query_plans(url, ask)
    assert not [plan for plan in found if "TEMP B-TREE" in plan]
    (of_jobs, *_) = found
    assert set(re.findall(r"(\w+)=\?", of_jobs)) == set(chosen)
