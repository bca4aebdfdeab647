"""Search by handles of credentials, names and words: complete, whoever wrote the ledger; bounded; without secrets."""

from __future__ import annotations

from contextlib import closing

import pytest
from alembic import command
from sqlalchemy import text

from justenough.adapters.store import Store, search
from justenough.adapters.store.engine import open_database
from justenough.adapters.store.migrate import alembic_config
from justenough.domain.core.ids import credential_id
from tests.adapters.store import event_samples as samples
from tests.adapters.store.conftest import as_owner
from tests.adapters.store.event_samples import job_id

USER = "v-token-orders-r-AbCdEf0123456789-1769851800"
CERTIFICATE = "pki/cert/1f-3a-00-bb-c1-22-91-7e-44-08"


@pytest.fixture(scope="module")
def filled(shared_store: Store) -> Store:
    """Three jobs of two people, one with a database user and a certificate."""
    refund, export, nightly = map(job_id, (1, 2, 3))
    shared_store.ledger.append(
        [
            samples.submission(refund),
            samples.access_request(refund, reason="Look up the parcel"),
            samples.issuance(refund, user=USER, lease_id="database/creds/orders-read/Xy12AbCdLease", certificate=CERTIFICATE),
            samples.approval_decision("approved", refund),
            samples.submission(export, name="export-invoices", task="Export for ticket 4712", agent=None, labels={"cost": "Zürich"}),
            samples.submission(
                nightly, name="nightly-refunds", task="Sum up", requester="e-eve", requester_name="eve", agent=None, labels={}, reason=""
            ),
        ]
    )
    shared_store.search.index()
    return shared_store


def found_jobs(store: Store, typed: str, requester_id: str | None = None) -> list[str]:
    return [hit.id for hit in store.search.find_words(typed, requester_id=requester_id).hits]


@pytest.mark.parametrize(
    "pasted",
    [
        USER,
        USER[:20],
        f"  {USER.upper()} ",
        "database/creds/orders-read/Xy12AbCdLease",
        "xy12abcd",
        CERTIFICATE,
        "1F:3A:00:BB:C1:22:91:7E:44:08",
        "serial=1F3A00BBC122917E4408",
        "1f3a00bbc122",
    ],
)
def test_a_credential_is_found_by_its_name_in_other_systems(filled: Store, pasted: str) -> None:
    assert [hit.id for hit in filled.search.find_handle(pasted)] == [credential_id(job_id(1), 1)]
    assert filled.search.find_handle(pasted)[0].job == job_id(1)


@pytest.mark.parametrize("pasted", ["", "xy12", "v-token-orders-r-none", "%", "\0" * 9, "x" * 5000, "1f:3a:00:bb:ff", "☃☃☃☃☃☃☃"])
def test_a_text_that_names_no_credential_finds_none(filled: Store, pasted: str) -> None:
    assert filled.search.find_handle(pasted) == ()


@pytest.mark.parametrize(
    "typed,jobs",
    [
        ("refund", [3, 1]),
        ("REFUND triage", [1]),
        ("refund-triage", [1]),
        ("4711", [1]),
        ("ticket", [2, 1]),
        ("ticket 47", [2, 1]),
        ("tick 4712", [2]),
        ("parcel", [1]),
        ("eve", [3]),
        ("refund-agent", [1]),
        ("orders", [1]),
        ("zürich", [2]),
        ("team support", [1]),
        ("looks right", [1]),
        ("refund eve", [3]),
        ("invoices eve", []),
        ("nothing-like-it", []),
        ("", []),
        ("% _", []),
        ("'; --", []),
        ("\0", []),
        ("x" * 9000, []),
    ],
)
def test_jobs_are_found_by_words_that_may_be_cut_short_newest_first(filled: Store, typed: str, jobs: list[int]) -> None:
    assert found_jobs(filled, typed) == [job_id(number) for number in jobs]


def test_handles_that_begin_like_a_word_do_not_displace_the_word(store: Store) -> None:
    handles = [samples.issuance(number=number, user=f"re{number:02d}AbCdEf") for number in range(1, 30)]
    store.ledger.append([samples.submission(), *handles])
    store.search.index()
    assert found_jobs(store, "re") == [samples.JOB]
    assert [hit.id for hit in store.search.find_handle("re07ab")] == [credential_id(samples.JOB, 7)]


def test_the_beginning_of_agent_does_not_find_every_job_that_has_an_agent(store: Store) -> None:
    store.ledger.append(
        [samples.submission(job_id(1), agent={"name": "triage-bot"}), samples.submission(job_id(2), task="Find the agency")]
    )
    store.search.index()
    assert found_jobs(store, "age") == [job_id(2)]
    assert store.search.jobs_of_agent("triage-bot", limit=5) == (job_id(1),)


def test_a_person_who_may_read_only_their_own_jobs_finds_only_those(filled: Store) -> None:
    assert found_jobs(filled, "refund", "e-eve") == [job_id(3)]
    assert found_jobs(filled, "refund", "e-ops") == [job_id(1)]
    assert found_jobs(filled, "refund", "e-nobody") == []


def test_a_persons_own_ids_are_found_although_many_ids_of_others_begin_like_them(store: Store) -> None:
    theirs = job_id(99)
    for job in (*map(job_id, range(search.MAX_FOUND_PER_KIND)), theirs):
        store.ledger.append([samples.submission(job, requester="e-eve" if job == theirs else "e-ops"), samples.access_request(job)])
    found = {text: store.search.find(text, installation="dev", requester_id="e-eve") for text in ("0000", "r-dev-")}
    assert {text: [(hit.kind, hit.job) for hit in hits] for text, hits in found.items()} == {
        "0000": [("job", theirs)],
        "r-dev-": [("request", theirs)],
    }


def test_a_search_for_names_finds_parts_of_names_that_the_reader_may_know(filled: Store) -> None:
    assert filled.search.find_names("fund") == (("agent", "refund-agent"), ("name", "refund-triage"), ("name", "nightly-refunds"))
    assert filled.search.find_names("FUND night") == (("name", "nightly-refunds"),)
    assert filled.search.find_names("fund", reader_id="e-eve") == (("name", "nightly-refunds"),)
    assert filled.search.find_names("lead") == (("person", "lead"),)
    assert filled.search.find_names("lead", reader_id="e-ops") == ()
    assert filled.search.find_names("%") == ()
    assert set(filled.search.names(reader_id="e-eve")) == {("name", "nightly-refunds"), ("person", "eve")}


def test_parameters_are_not_in_the_index(store: Store, url: str) -> None:
    store.ledger.append([samples.submission(task="Plain", reason="", params={"token": "hunter2-secret"})])
    assert store.search.index().is_complete
    engine = open_database(url).engine
    with engine.connect() as connection:
        words = set(connection.execute(text("SELECT word FROM search_words")).scalars())
    engine.dispose()
    assert "plain" in words
    assert not [word for word in words if "hunter2" in word]


def test_a_common_word_with_another_is_searched_among_the_newest_jobs_only(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_CANDIDATES", 3)
    store.ledger.append([samples.submission(job_id(number), task="rare" if number in {0, 9} else "usual") for number in range(10)])
    store.search.index()
    few, many = store.search.find_words("rare refund"), store.search.find_words("refund support")
    assert ([hit.id for hit in few.hits], few.is_partial) == ([job_id(9), job_id(0)], False)
    assert ([hit.id for hit in many.hits], many.is_partial) == ([job_id(9), job_id(8), job_id(7)], True)


def test_only_a_launchers_newest_jobs_are_searched_for_words(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_CANDIDATES", 3)
    jobs = {"e-few": range(3), "e-many": range(10, 14)}
    store.ledger.append([samples.submission(job_id(number), requester=who) for who, numbers in jobs.items() for number in numbers])
    store.search.index()
    few, many = (store.search.find_words("refund", requester_id=who) for who in jobs)
    assert ([hit.id for hit in few.hits], few.is_partial) == ([job_id(2), job_id(1), job_id(0)], False)
    assert ([hit.id for hit in many.hits], many.is_partial) == ([job_id(13), job_id(12), job_id(11)], True)


def test_indexing_continues_where_it_stopped_and_includes_what_other_versions_wrote(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "MAX_POSITIONS", 2)
    store.ledger.append([samples.submission(job_id(number)) for number in range(3)])
    first = store.search.index()
    assert (first.position, first.newest, first.is_complete) == (2, 3, False)
    assert found_jobs(store, "triage") == [job_id(1), job_id(0)]
    # This request has the words of its job, whose first entry is indexed already.
    store.ledger.append([samples.access_request(job_id(0), reason="Later on")])
    while not store.search.index().is_complete:
        pass
    assert found_jobs(store, "triage") == [job_id(2), job_id(1), job_id(0)]
    assert found_jobs(store, "later triage") == [job_id(0)]
    assert store.search.index() == store.search.progress()


def test_of_two_consoles_that_index_the_same_entries_one_changes_nothing(store: Store) -> None:
    store.ledger.append([samples.submission(job_id(0))])
    slow = store.search._read_unindexed()
    store.ledger.append([samples.submission(job_id(1))])
    done = store.search.index()
    store.search._add_terms(slow)
    assert store.search.progress() == done
    assert found_jobs(store, "triage") == [job_id(1), job_id(0)]


def test_a_store_from_before_there_was_a_search_is_indexed_from_its_beginning(empty_url: str) -> None:
    with closing(Store(empty_url)) as store:
        store.migrate()
        store.ledger.append([samples.submission(), samples.issuance(user=USER)])
    engine, config = open_database(as_owner(empty_url)).engine, alembic_config()
    # Restore the state of the previous version: its tables, with the ledger in them.
    with engine.begin() as connection:
        for table in ("search_words", "search_names", "search_progress", "acknowledgements"):
            connection.execute(text(f"DROP TABLE {table}"))
        for column in ("lapsed", "on_behalf_of_id"):
            connection.execute(text(f"ALTER TABLE approvals DROP COLUMN {column}"))
        connection.execute(text("ALTER TABLE target_checks DROP COLUMN actions"))
        config.attributes["connection"] = connection
        command.stamp(config, "0026")
    engine.dispose()
    with closing(Store(empty_url)) as store:
        assert store.migrate().found == "0026"
        assert found_jobs(store, "triage") == []
        assert store.search.index().is_complete
        assert found_jobs(store, "triage") == [samples.JOB]
        assert [hit.job for hit in store.search.find_handle(USER)] == [samples.JOB]
