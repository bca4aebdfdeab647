"""The ledger in the database: insert-only, each entry once, in order; and what verification finds."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from datetime import timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from justenough.adapters.store import Store
from justenough.adapters.store.engine import open_database
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.ledger.hash_chain import GENESIS
from tests.adapters.store import event_samples as samples
from tests.adapters.store.conftest import as_owner, new_database
from tests.adapters.store.event_samples import JOB, job_id, later, part_id

OTHER = job_id(2)


@pytest.fixture
def filled(store: Store) -> Store:
    store.ledger.append([samples.submission(), samples.issuance(), samples.job_start()])
    store.ledger.append([samples.submission(OTHER), samples.job_end(job=OTHER)])
    store.ledger.append([samples.credential_confirmation(), samples.job_end()])
    return store


def test_events_are_chained_per_job(filled: Store) -> None:
    entries = filled.ledger.entries(job=JOB).items
    assert [entry.seq for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.prev for entry in entries] == [GENESIS, *(entry.hash for entry in entries[:-1])]
    assert filled.ledger.entries(job=OTHER).items[0].prev == GENESIS


def test_recording_again_changes_nothing_and_returns_nothing(filled: Store) -> None:
    before = (filled.ledger.entries().items, filled.jobs.get(JOB))
    assert filled.ledger.append([samples.submission(task="another"), samples.issuance(), samples.job_start(at=later(99))]) == ()
    assert (filled.ledger.entries().items, filled.jobs.get(JOB)) == before


def test_events_repeated_in_a_call_or_recorded_before_are_recorded_once(store: Store) -> None:
    store.ledger.append([samples.submission()])
    new = store.ledger.append([samples.submission(), samples.job_start(), samples.job_start(), samples.job_end()])
    assert [entry.type for entry in new] == ["job.started", "job.ended"]
    assert store.ledger.append([]) == ()


def test_the_events_of_one_call_are_recorded_all_or_none(store: Store) -> None:
    broken = samples.job_end("no such state")
    with pytest.raises(ValueError, match="no such state"):
        store.ledger.append([samples.submission(), broken])
    assert store.ledger.entries().items == ()
    assert store.jobs.get(JOB) is None


def test_one_callers_invalid_event_does_not_affect_another_callers(store: Store) -> None:
    """Callers that wait share a transaction."""
    outcomes: dict[str, object] = {}

    def record(name: str, fact: Event) -> None:
        try:
            outcomes[name] = store.ledger.append([fact])
        except ValueError as error:
            outcomes[name] = error

    facts = {str(n): samples.job_end("no such state", job_id(n)) if n % 4 == 0 else samples.submission(job_id(n)) for n in range(24)}
    threads = [threading.Thread(target=record, args=item) for item in facts.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {name for name, outcome in outcomes.items() if isinstance(outcome, ValueError)} == {str(n) for n in range(0, 24, 4)}
    assert len(store.ledger.entries().items) == 18
    assert store.ledger.verify().sound


def test_any_text_is_read_back_as_it_was_stored(store: Store) -> None:
    hostile = "'; DROP TABLE ledger; -- \"\\ \u2028 \r\n\t 😀 \x00 \ud800 \x7f"
    store.ledger.append([samples.submission(task=hostile, reason=hostile), samples.job_refusal(hostile)])
    readable = hostile.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")
    view = store.jobs.get(JOB)
    assert view is not None
    assert (view.task, view.order_reason) == (readable, readable)
    assert store.ledger.entries().items[1].data["why"] == readable
    assert store.ledger.verify().sound


def test_hostile_and_very_long_ids_are_recorded_and_only_once(store: Store) -> None:
    facts = [samples.job_refusal("x", job="j-dev-\n\x00\ud800", about="a\nb"), samples.job_refusal("x", about="\U0001f600" * 5000)]
    assert len(store.ledger.append(facts)) == 2
    assert store.ledger.append(facts) == ()
    assert store.ledger.verify().sound


def test_data_that_is_not_json_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="inf"):
        store.ledger.append([samples.submission(params={"x": float("inf")})])


def test_the_ledger_is_read_in_order_page_by_page(filled: Store) -> None:
    first = filled.ledger.entries(limit=4)
    second = filled.ledger.entries(after=int(first.next or 0), limit=4)
    positions = [entry.position for entry in (*first.items, *second.items)]
    assert positions == sorted(set(positions))
    assert (len(positions), second.next) == (7, None)
    chain = filled.ledger.entries(job=JOB, limit=2)
    assert [entry.seq for entry in filled.ledger.entries(job=JOB, after=int(chain.next or 0)).items] == [3, 4, 5]


def test_the_ledger_is_read_by_type_and_from_a_moment_on(store: Store) -> None:
    facts = [
        samples.submission(),
        samples.job_start(at=later(0.000001)),
        samples.submission(OTHER, at=later(1)),
        samples.issuance(OTHER, at=later(2)),
        samples.job_end(job=OTHER, at=later(3)),
    ]
    store.ledger.append(facts)
    kinds = (EventType.JOB_SUBMITTED, EventType.JOB_ENDED)

    assert [entry.seq for entry in store.ledger.entries(types=kinds).items] == [1, 1, 3]
    assert [entry.type for entry in store.ledger.entries(types=kinds, job=OTHER).items] == ["job.submitted", "job.ended"]
    assert [entry.at for entry in store.ledger.entries(since=later(2)).items] == [later(2), later(3)]
    assert [entry.type for entry in store.ledger.entries(since=later(0.000001), types=[EventType.JOB_STARTED]).items] == ["job.started"]
    # A moment is the same in every zone.
    elsewhere = later(2).astimezone(timezone(timedelta(hours=9)))
    assert store.ledger.entries(since=elsewhere).items == store.ledger.entries(since=later(2)).items
    first = store.ledger.entries(types=kinds, limit=2)
    assert [entry.type for entry in store.ledger.entries(types=kinds, limit=2, after=int(first.next or 0)).items] == ["job.ended"]


def test_the_head_is_the_newest_entry(store: Store) -> None:
    assert (store.ledger.head().entries, store.ledger.head().hash) == (0, None)
    (entry,) = store.ledger.append([samples.submission()])
    assert (store.ledger.head().entries, store.ledger.head().position, store.ledger.head().hash) == (1, entry.position, entry.hash)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET data = '{}' WHERE position = 1",
        "UPDATE ledger SET hash = hash",
        "DELETE FROM ledger WHERE position = 2",
        "DELETE FROM ledger",
    ],
)
def test_the_database_itself_refuses_to_change_the_ledger(filled: Store, url: str, statement: str) -> None:
    before = filled.ledger.entries().items
    with pytest.raises(DBAPIError, match="the ledger is insert-only"):
        run_statements(url, statement)
    assert filled.ledger.entries().items == before


@pytest.mark.parametrize("same", ["position = 1", "id = (SELECT id FROM ledger WHERE position = 1)", "job = :job AND seq = 1"])
def test_the_database_itself_refuses_to_replace_an_entry(filled: Store, url: str, same: str) -> None:
    before = filled.ledger.entries().items
    row = "99, :job, 99, 'new', type, at, data, prev, hash"
    row = {"p": row.replace("99, :job", "1, :job"), "i": row.replace("'new'", "id"), "j": row.replace("99, 'new'", "1, 'new'")}[same[0]]
    on_conflict = "ON CONFLICT ({}) DO UPDATE SET data = '{{}}'".format({"p": "position", "i": "id", "j": "job, seq"}[same[0]])
    verb, end = ("INSERT OR REPLACE", "") if url.startswith("sqlite") else ("INSERT", on_conflict)
    columns = "position, job, seq, id, type, at, data, prev, hash"
    with pytest.raises(DBAPIError, match="the ledger is insert-only"):
        run_statements(url, f"{verb} INTO ledger ({columns}) SELECT {row} FROM ledger WHERE position = 1 {end}")
    assert filled.ledger.entries().items == before


@pytest.mark.servers
@pytest.mark.parametrize("statements", [["TRUNCATE ledger"], ["SET session_replication_role = replica", "DELETE FROM ledger"]])
def test_postgresql_refuses_to_empty_the_ledger_even_as_a_replica(postgres_port: int, statements: list[str]) -> None:
    url = new_database(postgres_port)
    with closing(Store(url)) as store:
        store.migrate()
        store.ledger.append([samples.submission()])
        with pytest.raises(DBAPIError, match="the ledger is insert-only"):
            run_statements(url, *statements)
        assert len(store.ledger.entries().items) == 1


def test_an_untouched_ledger_is_sound_and_its_report_states_the_limits_of_the_check(filled: Store) -> None:
    report = filled.ledger.verify()
    assert (report.entries, report.jobs, report.problems, report.sound) == (7, 2, (), True)
    assert any("newest entries" in sentence and "checkpoints" in sentence for sentence in report.unseen)


EDIT = """UPDATE ledger SET data = replace(data, '"bubblewrap"', '"off"') WHERE job = :job AND seq = 3"""
SWAP = (
    "UPDATE ledger SET seq = 99 WHERE job = :job AND seq = 2",
    "UPDATE ledger SET seq = 2 WHERE job = :job AND seq = 3",
    "UPDATE ledger SET seq = 3 WHERE job = :job AND seq = 99",
)
CUT = "DELETE FROM ledger WHERE job = :job AND seq > 3"
FORK = "INSERT INTO ledger SELECT 8, job, 3, 'forked', type, at, data, prev, hash FROM ledger WHERE job = :job AND seq = 4"


@pytest.mark.parametrize(
    "statements,found",
    [
        pytest.param((EDIT,), {(JOB, 3, "edited")}, id="edited"),
        pytest.param(
            ("UPDATE ledger SET at = replace(at, '2026', '2025') WHERE job = :job AND seq = 5",), {(JOB, 5, "edited")}, id="redated"
        ),
        pytest.param(("UPDATE ledger SET id = 'x' WHERE job = :job AND seq = 1",), {(JOB, 1, "edited")}, id="renamed"),
        pytest.param(("DELETE FROM ledger WHERE job = :job AND seq = 2",), {(JOB, 2, "missing"), ("-", 0, "missing")}, id="deleted inside"),
        pytest.param(
            SWAP, {(JOB, 2, "edited"), (JOB, 2, "unlinked"), (JOB, 3, "edited"), (JOB, 3, "unlinked"), (JOB, 4, "unlinked")}, id="reordered"
        ),
        pytest.param((FORK,), {(JOB, 3, "forked"), (JOB, 3, "edited"), (JOB, 4, "unlinked")}, id="forked"),
        pytest.param((CUT,), {(JOB, 4, "missing")}, id="cut off, head forgotten"),
        pytest.param(
            ("DELETE FROM ledger WHERE job = :job",), {(JOB, 1, "missing"), ("-", 0, "missing")}, id="chain removed, head forgotten"
        ),
        pytest.param(
            ("DELETE FROM ledger WHERE job = :job", "DELETE FROM chain_heads WHERE job = :job"),
            {("-", 0, "missing")},
            id="chain and head removed",
        ),
        pytest.param(("DELETE FROM chain_heads WHERE job = :job",), {(JOB, 5, "headless")}, id="head removed"),
        pytest.param(("UPDATE chain_heads SET seq = 4 WHERE job = :job",), {(JOB, 5, "headless")}, id="entries behind the writer's back"),
        pytest.param(("UPDATE chain_heads SET hash = 'x' WHERE job = :job",), {(JOB, 5, "headless")}, id="another end"),
    ],
)
def test_tampering_with_the_ledgers_tables_is_detected(
    filled: Store, url: str, statements: tuple[str, ...], found: set[tuple[str, int, str]]
) -> None:
    tamper(url, *statements)
    assert {(problem.job, problem.seq, problem.fault) for problem in filled.ledger.verify().problems} == found


@pytest.mark.parametrize(
    "data",
    ["no JSON", "[]", '{"a": ' * 300 + "{}" + "}" * 300, "[" * 100_000],
    ids=["no JSON", "no object", "nested too deeply to show", "nested too deeply to read"],
)
def test_an_entry_whose_data_somebody_replaced_does_not_keep_the_others_from_being_read(filled: Store, url: str, data: str) -> None:
    tamper(url, f"UPDATE ledger SET data = '{data}' WHERE job = :job AND seq = 3")
    replaced, other = filled.ledger.entries(job=JOB).items[2:4]
    assert json.loads(replaced.model_dump_json())["data"] == {"unreadable": data}
    assert "unreadable" not in other.data


def test_removing_the_newest_entry_together_with_its_head_is_not_detected(filled: Store, url: str) -> None:
    """This is the limit that `unseen` states: the newest entry is removed together with its head."""
    statements = (
        "DELETE FROM ledger WHERE job = :job AND seq = 5",
        "UPDATE chain_heads SET seq = 4, hash = (SELECT hash FROM ledger WHERE job = :job AND seq = 4) WHERE job = :job",
    )
    tamper(url, *statements)
    assert filled.ledger.verify().sound


def test_verifying_a_wholly_altered_ledger_reports_at_most_1000_problems(store: Store, url: str) -> None:
    for start in range(0, 1200, 400):
        store.ledger.append([samples.submission(job_id(number)) for number in range(start, start + 400)])
    tamper(url, "UPDATE ledger SET data = '{}'")
    assert len(store.ledger.verify().problems) == 1000


def test_the_stored_data_is_canonical_json(filled: Store, url: str) -> None:
    ((stored,),) = run_statements(url, "SELECT data FROM ledger WHERE job = :job AND seq = 2")
    assert json.loads(stored)["credential"] == part_id(JOB, "c")
    assert stored == json.dumps(json.loads(stored), sort_keys=True, separators=(",", ":"))


def test_every_type_of_event_can_be_recorded_without_its_job(store: Store) -> None:
    """A fact about a job that the store does not know is still a fact."""
    assert EventType.SWEEP_REPORTED.value == "sweep.reported"
    fact = Event(id="s", job="-", type=EventType.SWEEP_REPORTED, at=later(0), data={"unknown": ["j-other-1"]})
    assert store.ledger.append([fact])[0].data == {"unknown": ["j-other-1"]}


TRIGGERS = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
# SQLite cannot drop a constraint: the table is made anew without them.
WITHOUT_CONSTRAINTS = ("CREATE TABLE copy AS SELECT * FROM ledger", "DROP TABLE ledger", "ALTER TABLE copy RENAME TO ledger")
UNGUARDED = "ALTER TABLE ledger DISABLE TRIGGER ALL, DROP CONSTRAINT uq_ledger_job_seq, DROP CONSTRAINT uq_ledger_id"


def run_statements(url: str, *statements: str) -> list[Any]:
    """Run statements as the owner of the tables in one transaction, `:job` being JOB; return the rows of the last one."""
    engine = open_database(as_owner(url)).engine
    try:
        with engine.begin() as connection:
            *_, last = [connection.execute(text(statement), {"job": JOB} if ":job" in statement else {}) for statement in statements]
            return list(last) if last.returns_rows else []
    finally:
        engine.dispose()


def tamper(url: str, *statements: str) -> None:
    """Change the tables as someone does who may: without the triggers, without the constraints."""
    if url.startswith("sqlite"):
        run_statements(url, *(f"DROP TRIGGER {name}" for (name,) in run_statements(url, TRIGGERS)), *WITHOUT_CONSTRAINTS)
    else:
        run_statements(url, UNGUARDED)
    run_statements(url, *statements)
