"""The evidence report from a store: which entries belong to a period, the current state, and what is too much. On both databases."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial

import pytest
from sqlalchemy import text

from justenough.adapters.store import Store, ledger_repository, repository
from justenough.adapters.store.engine import open_database
from justenough.domain.core.errors import InvalidInput
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.evidence.report import Report, Status
from justenough.domain.ledger.events import Event, EventType
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.services import evidence_report
from justenough.services.evidence_report import build_evidence_report
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import JOB, NOW, job_id, later, part_id
from tests.adapters.store.test_ledger_writer import tamper
from tests.support.evidence_samples import line

HOUR = timedelta(hours=1)


def job_events(job: str, *, at: datetime = NOW) -> list[Event]:
    """All that is recorded of a job that was approved, ran, and was shown to be clean."""
    asked = [
        samples.submission(job, at=at),
        samples.access_request(job, at=at),
        samples.access_decision("needs_approval", job, tier=1, at=at),
        samples.approval_opening(job, at=at),
    ]
    ran = [
        samples.approval_decision("approved", job, at=at + timedelta(seconds=30)),
        samples.job_start(job, at=at),
        samples.issuance(job, at=at),
    ]
    return [
        *asked,
        *ran,
        samples.revocation_start(job, at=at),
        samples.credential_confirmation(job, at=at),
        samples.revocation_proof(job, at=at),
        samples.job_end(job=job, at=at),
    ]


def build_report(store: Store, *, since: datetime = NOW - HOUR, until: datetime = NOW + HOUR, now: datetime = NOW + HOUR) -> Report:
    return build_evidence_report(store, ReportPeriod(since, until), installation="dev", now=now)


def violations(report: Report) -> set[str]:
    return {one.key for one in report.lines if one.status is Status.VIOLATION}


def record_events(store: Store, *events: Iterable[Event]) -> None:
    for some in events:
        store.ledger.append(some)


def test_ended_jobs_leave_no_standing_privilege(store: Store) -> None:
    record_events(store, *(job_events(job_id(number)) for number in range(3)))
    found = build_report(store)
    assert violations(found) == set()
    assert line(found, "standing.live").figures["credentials"] == 0
    assert line(found, "lifetimes.real").figures["measured"] == 3
    assert line(found, "approvals.people").figures == {"answers": 3, "people": 1, "for_somebody_away": 0}
    assert line(found, "ledger.verified").figures == {"verified": "sound", "problems": 0, "chains": 3}
    assert line(found, "ledger.entries").figures["entries"] == 33


def test_a_live_credential_of_an_ended_job_is_a_violation_that_names_its_entry(store: Store) -> None:
    record_events(store, job_events(JOB), job_events(job_id(2)), [samples.issuance(number=2, at=NOW + timedelta(minutes=55))])
    found = build_report(store)
    assert violations(found) == {"standing.after_end"}
    assert line(found, "standing.after_end").evidence.ids == (f"{JOB}/credential.issued/{part_id(JOB, 'c', 2)}",)
    assert set(line(found, "standing.after_end").evidence.ids) <= store.ledger.existing_ids(line(found, "standing.after_end").evidence.ids)


def test_a_live_credential_of_no_job_and_one_beyond_its_end_are_violations(store: Store) -> None:
    record_events(store, [samples.submission(), samples.issuance(at=NOW)], [samples.issuance(job_id(9), at=NOW + timedelta(minutes=55))])
    found = build_report(store)
    assert violations(found) == {"standing.beyond_end", "standing.unknown_job"}


def test_a_credential_that_was_hidden_from_the_lists_is_reported_from_the_ledger(store: Store, url: str) -> None:
    record_events(store, [samples.submission(), samples.issuance()], job_events(job_id(2)))
    engine = open_database(url).engine
    with engine.begin() as connection:
        connection.execute(text("UPDATE credentials SET live = :no, state = 'confirmed'"), {"no": False})
    engine.dispose()
    found = build_report(store)
    assert line(found, "standing.live").figures["credentials"] == 0
    assert violations(found) == {"standing.untold"}
    assert line(found, "standing.untold").evidence.ids == (f"{JOB}/credential.issued/{part_id(JOB, 'c')}",)


def test_a_credential_that_ended_after_the_period_is_no_violation(store: Store) -> None:
    record_events(store, [samples.submission(), samples.issuance(), samples.credential_confirmation(at=later(7200))])
    assert violations(build_report(store, now=later(9000))) == set()


def test_a_credential_that_nobody_can_revoke_and_whose_job_ended_after_the_period_is_no_violation(store: Store) -> None:
    left = samples.credential_event(EventType.CREDENTIAL_RESIDUAL, until=None, why="a static secret", at=later(7200))
    record_events(store, [samples.submission(), samples.issuance(revocable="never"), left])
    assert violations(build_report(store, now=later(9000))) == set()
    record_events(store, [samples.issuance(number=2, revocable="never")])
    assert violations(build_report(store, now=later(9000))) == {"standing.beyond_end"}


def test_an_overdue_revocation_is_reported_with_how_long_it_has_been_open(store: Store) -> None:
    record_events(
        store, [samples.submission(), samples.issuance(), samples.revocation_start(at=later(60)), samples.overdue_revocation(at=later(80))]
    )
    found = build_report(store, now=later(660))
    assert line(found, "revocation.overdue_now").figures == {"jobs": 1, "longest_seconds": 600.0}
    assert "revocation.overdue_now" in violations(found)


def test_a_period_includes_events_that_happened_in_it_but_were_recorded_late(store: Store) -> None:
    first, last = NOW, NOW + HOUR
    record_events(
        store, job_events(job_id(1), at=first - timedelta(microseconds=1)), job_events(job_id(2), at=last), job_events(job_id(3), at=first)
    )
    # The store was away, so these entries come after entries with a later time.
    record_events(store, job_events(job_id(4), at=last - timedelta(minutes=1)))
    found = build_report(store, since=first, until=last, now=last)
    assert line(found, "lifetimes.real").evidence.ids == tuple(
        f"{job}/credential.confirmed/{part_id(job, 'c')}" for job in (job_id(3), job_id(4))
    )


@pytest.mark.parametrize("data", ["{}", "[]", "no JSON", '{"credential":[],"revocable":"now","issued_at":1}'])
def test_a_report_names_an_entry_that_was_edited_so_that_it_cannot_be_counted(store: Store, url: str, data: str) -> None:
    record_events(store, job_events(JOB))
    tamper(url, f"UPDATE ledger SET data = '{data.replace(':', chr(92) + ':')}' WHERE type = 'credential.issued'")
    with pytest.raises(InvalidInput, match=f"{JOB}/credential.issued/.*justenough ledger verify"):
        build_report(store)


def test_a_period_without_entries_needs_attention(store: Store) -> None:
    found = build_report(store)
    assert (found.entries, found.status) == (0, Status.ATTENTION)


def test_a_report_read_in_small_steps_is_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record_events(
        store,
        *(job_events(job_id(number)) for number in range(4)),
        [samples.submission(), samples.issuance(), samples.issuance(number=2), samples.issuance(number=3)],
    )
    at_once = build_report(store)
    monkeypatch.setattr(repository, "ROWS_PER_FETCH", 2)
    monkeypatch.setattr(evidence_report, "LOOKUP_BATCH_SIZE", 1)
    assert build_report(store) == at_once
    assert line(at_once, "standing.live").figures["credentials"] == 3


def test_a_period_with_more_entries_than_one_report_reads_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record_events(store, job_events(JOB))
    monkeypatch.setattr(evidence_report, "MAX_ENTRIES_PER_REPORT", 10)
    with pytest.raises(InvalidInput, match=r"query\.since: the period has up to 11 ledger entries; .* at most 10: request shorter periods"):
        build_report(store)


def test_a_period_that_ends_before_it_begins_is_refused(store: Store) -> None:
    with pytest.raises(InvalidInput, match=r"query\.since: must be before until \(2026-01-31T08:30:00.000000Z\)"):
        build_report(store, until=NOW - HOUR)


def test_a_ledger_is_not_reported_as_sound_without_the_signatures_of_its_checkpoints(store: Store) -> None:
    store.ledger.append([samples.submission()])
    period, chains = ReportPeriod(NOW - HOUR, NOW + HOUR), store.ledger.verify()
    without_keys = chains.model_copy(update={"unseen": (*chains.unseen, "The signatures of checkpoints could not be verified.")})
    found = [
        line(
            build_evidence_report(store, period, installation="dev", now=NOW, verify=partial(LedgerReport.model_copy, answer)),
            "ledger.verified",
        )
        for answer in (chains, without_keys)
    ]
    assert [(one.status, one.figures["verified"]) for one in found] == [
        (Status.OK, "sound"),
        (Status.ATTENTION, "sound, but signatures of checkpoints were not verified"),
    ]


def test_a_ledger_too_large_to_verify_is_reported_as_not_verified(store: Store) -> None:
    record_events(store, job_events(JOB))
    period = ReportPeriod(NOW - HOUR, NOW + HOUR)
    told_of = {most: build_evidence_report(store, period, installation="dev", now=NOW, max_verified_entries=most) for most in (10, 11)}
    found = {most: line(one, "ledger.verified") for most, one in told_of.items()}
    assert (found[10].figures["verified"], found[10].status) == ("no", Status.ATTENTION)
    assert (found[11].figures["verified"], found[11].status) == ("sound", Status.OK)


def test_a_ledger_that_was_changed_is_a_violation(store: Store, url: str) -> None:
    record_events(store, job_events(JOB))
    engine = open_database(url).engine
    with engine.begin() as connection:
        connection.execute(text("UPDATE chain_heads SET seq = seq + 1"))
    engine.dispose()
    assert violations(build_report(store)) == {"ledger.verified"}


def test_the_start_of_a_period_is_found_by_the_index(store: Store, url: str) -> None:
    record_events(store, [fact for number in range(100) for fact in job_events(job_id(number), at=later(number))])
    engine = open_database(url).engine
    explain, begin = ("EXPLAIN QUERY PLAN", "PRAGMA optimize") if url.startswith("sqlite") else ("EXPLAIN", "SET enable_seqscan = off")
    with closing(engine.connect()) as connection:
        connection.execute(text("ANALYZE"))
        connection.execute(text(begin))
        asked = str(ledger_repository.span_statement(later(98), later(300)).compile(engine, compile_kwargs={"literal_binds": True}))
        # SQLite knows no offset without a limit, and -1 is none.
        rows = connection.exec_driver_sql(f"{explain} {asked.replace('LIMIT ?', 'LIMIT -1')}")
        plan = "\n".join(str(row[-1]) for row in rows)
    engine.dispose()
    assert "ix_ledger_at_position" in plan
    assert "pk_ledger" not in plan
