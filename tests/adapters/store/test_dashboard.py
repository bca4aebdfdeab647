"""What is open now, and the figures of a period, as pages show them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from justenough.adapters.store import Store, dashboard
from justenough.domain.evidence.statistics import nearest_rank
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import EventType, build_event
from justenough.domain.readmodel.dashboard import HISTOGRAM_BOUNDS_S, build_histogram, reconstruct_alive_counts
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import NOW, job_id, later, part_id


def test_an_empty_store_has_nothing_open(store: Store) -> None:
    found = store.dashboard.current_counts(NOW)
    assert (found.live, found.jobs, found.ended, found.requests, found.overdue) == ((), {}, {}, {}, ())
    assert (found.live_credentials, found.oldest, found.soonest, found.open_reviews, found.overdue_jobs) == (0, None, None, 0, 0)


def test_live_credentials_are_counted_by_what_they_open(store: Store) -> None:
    store.ledger.append([samples.submission(), *(samples.issuance(number=number, at=later(number)) for number in (1, 2))])
    store.ledger.append(
        [
            samples.issuance(number=3, at=later(3), resource="refunds-db", action="read"),
            samples.issuance(number=4, at=later(4)),
            samples.credential_confirmation(number=4),
        ]
    )
    store.ledger.append(
        [samples.credential_event(EventType.CREDENTIAL_OVERDUE, number=2, at=later(5), by="session", failures=["x"], attempt=1)]
    )
    found = store.dashboard.current_counts(NOW)
    assert [(kind.resource, kind.action, kind.count, kind.overdue, kind.oldest) for kind in found.live] == [
        ("orders-db", "write", 2, 1, later(1)),
        ("refunds-db", "read", 1, 0, later(3)),
    ]
    assert (found.live_credentials, found.overdue_credentials, found.oldest) == (3, 1, later(1))


def test_jobs_are_counted_by_state_and_those_that_ended_within_a_day(store: Store) -> None:
    store.ledger.append([samples.submission(job_id(number)) for number in range(7)])
    store.ledger.append([samples.job_start(job_id(0)), samples.job_start(job_id(1))])
    store.ledger.append(
        [
            samples.job_end("failed", job_id(2), at=later(1)),
            samples.job_end(job=job_id(3), at=later(1)),
            samples.job_end(job=job_id(4), at=later(86_401)),
        ]
    )
    found = store.dashboard.current_counts(later(86_402))
    assert found.jobs == {JobState.RUNNING: 2, JobState.PENDING: 2}
    assert found.ended == {JobState.SUCCEEDED: 1}
    assert store.dashboard.current_counts(later(2)).ended == {JobState.SUCCEEDED: 2, JobState.FAILED: 1}


def test_requests_count_at_the_tier_that_answers_now(store: Store) -> None:
    jobs = [job_id(number) for number in range(4)]
    for number, (job, tier) in enumerate(zip(jobs, (1, 1, 2, 1), strict=True)):
        store.ledger.append(
            [samples.submission(job), samples.access_request(job), samples.access_decision("needs_approval", job, tier=tier)]
        )
        store.ledger.append([samples.approval_opening(job, tier=tier, at=later(number))])
    # One that is answered, one that climbed, and one that nobody was asked for yet.
    store.ledger.append(
        [
            samples.approval_decision("denied", jobs[3], decision="deny"),
            samples.approval_opening(jobs[1], tier=3, at=later(60), escalated=True),
        ]
    )
    store.ledger.append([samples.access_request(jobs[0], number=2)])
    found = store.dashboard.current_counts(NOW)
    assert found.requests == {1: 1, 2: 1, 3: 1}
    assert (found.open_requests, found.soonest) == (3, NOW + timedelta(minutes=15))


def test_overdue_revocations_are_listed_oldest_first_up_to_a_limit(store: Store) -> None:
    count = dashboard.MAX_OVERDUE_JOBS + 3
    for number in range(count):
        job = job_id(number)
        store.ledger.append(
            [
                samples.submission(job, at=later(number)),
                samples.issuance(job),
                samples.job_end(job=job, at=later(50)),
                samples.overdue_revocation(job, at=later(100 + number)),
            ]
        )
    store.ledger.append([samples.credential_confirmation(job_id(0)), samples.revocation_proof(job_id(0), at=later(500))])
    found = store.dashboard.current_counts(NOW)
    assert found.overdue_jobs == count - 1
    assert [job.id for job in found.overdue] == [job_id(number) for number in range(1, dashboard.MAX_OVERDUE_JOBS + 1)]
    assert found.overdue[0].since == later(50)
    assert found.overdue[0].failures == ("leases: the target does not answer",)
    assert [len(job.credentials) for job in found.overdue] == [1] * dashboard.MAX_OVERDUE_JOBS
    (credential,) = found.overdue[0].credentials
    assert (credential.id, credential.resource) == (samples.part_id(job_id(1), "c"), "orders-db")
    requester = samples.submission().data["requester"]
    assert store.dashboard.overdue_jobs_of(requester) == found.overdue
    assert store.dashboard.overdue_jobs_of("somebody else") == ()


def test_figures_count_each_job_once_however_often_its_end_is_recorded(store: Store) -> None:
    store.ledger.append([samples.submission(job_id(number)) for number in range(4)])
    store.ledger.append(
        [samples.job_end("failed", job_id(0)), samples.job_end("succeeded", job_id(0), about="again"), samples.job_end("failed", job_id(1))]
    )
    store.ledger.append([samples.job_end("failed", job_id(0)), samples.job_end("lost", job_id(2)), samples.job_end("lost", job_id(9))])
    assert store.metrics.counts().jobs == {"failed": 2, "lost": 1, "pending": 1}


def test_a_period_trend_shows_how_many_credentials_were_alive_at_each_moment(store: Store) -> None:
    store.ledger.append([samples.submission(), *(samples.issuance(number=number, at=later(600 * number)) for number in range(1, 7))])
    store.ledger.append(
        [samples.credential_confirmation(number=1, at=later(1500)), samples.credential_confirmation(number=2, at=later(2500))]
    )
    expired = samples.credential_event(EventType.CREDENTIAL_EXPIRED, number=3, at=later(2500), why="nobody could look")
    store.ledger.append([expired])
    found = store.dashboard.period_trend(NOW, later(3600), 4)
    # Until 900: the first. Until 1800: 1 to 3, the first dead. Until 2700: 2 dead, 3 expired at 2400. Until 3600: 4, 5 and 6.
    assert [(moment.at, moment.count) for moment in found.alive] == [(later(900), 1), (later(1800), 2), (later(2700), 1), (later(3600), 3)]
    assert (found.lifetimes.count, found.lifetimes.longest, found.lifetimes.whole) == (2, 1300.0, True)


def test_a_period_trend_counts_secrets_that_nothing_revokes_until_their_job_has_ended(store: Store) -> None:
    values = [samples.issuance(number=number, at=later(600), expires_at=later(86_400), revocable="never") for number in (1, 2)]
    store.ledger.append([samples.submission(), *values, samples.job_end(at=later(1500))])
    left = samples.credential_event(EventType.CREDENTIAL_RESIDUAL, number=1, at=later(1500), until=None, why="it cannot be revoked")
    unused = samples.credential_event(
        EventType.CREDENTIAL_EXPIRED, number=2, at=later(1500), why="only the worker used it", revocable="never"
    )
    store.ledger.append([left, unused])
    found = store.dashboard.period_trend(NOW, later(3600), 6)
    assert [moment.count for moment in found.alive] == [2, 2, 0, 0, 0, 0]


def test_a_period_trend_shows_how_long_answers_took(store: Store) -> None:
    for number, seconds in enumerate((5, 50, 500)):
        job = job_id(number)
        store.ledger.append(
            [
                samples.submission(job),
                samples.access_request(job),
                samples.access_decision("needs_approval", job, tier=1),
                samples.approval_opening(job),
            ]
        )
        verdict = "pending" if number == 2 else "approved"
        store.ledger.append(
            [
                samples.approval_decision("pending", job, person="first", at=later(1)),
                samples.approval_decision(verdict, job, at=later(seconds)),
            ]
        )
    found = store.dashboard.period_trend(NOW, later(3600), 2).approvals
    # The third waits for somebody else; of two answers the last one settled it.
    assert (found.count, found.p50, found.longest) == (2, 5.0, 50.0)
    assert [(bar.seconds, bar.count) for bar in found.bars if bar.count] == [(10, 1), (60, 1)]
    assert store.dashboard.period_trend(later(3600), later(7200), 2).approvals.count == 0


def test_the_time_to_decision_leaves_out_requests_that_too_few_people_answered(store: Store) -> None:
    jobs = [job_id(number) for number in range(3)]
    for job in jobs:
        store.ledger.append([samples.submission(job), samples.access_request(job), samples.access_decision("needs_approval", job, tier=1)])
        store.ledger.append([samples.approval_opening(job), samples.approval_decision("pending", job, person="first", at=later(1))])
    expired, ended, withdrawn = jobs
    request = {"about": part_id(expired, "r"), "request": part_id(expired, "r")}
    store.ledger.append([build_event(EventType.APPROVAL_EXPIRED, expired, at=later(900), tier=1, **request)])
    store.ledger.append([samples.job_end("cancelled", ended, at=later(900))])
    # This one was decided before its approval was withdrawn.
    request = {"about": part_id(withdrawn, "r"), "request": part_id(withdrawn, "r")}
    person: dict[str, Any] = {"person": "e-lead", "name": "lead", "reason": "a fake", "signed": None, "verdict": "withdrawn"}
    store.ledger.append([samples.approval_decision("approved", withdrawn, at=later(30))])
    store.ledger.append([build_event(EventType.APPROVAL_WITHDRAWN, withdrawn, at=later(60), **request, **person)])
    found = store.dashboard.period_trend(NOW, later(3600), 2).approvals
    assert (found.count, found.longest) == (1, 30.0)


def test_a_trend_of_a_busy_period_covers_only_its_newest_part_and_is_marked_incomplete(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "MAX_ROWS_PER_KIND", 3)
    store.ledger.append([samples.submission(), *(samples.issuance(number=number, at=later(600 * number)) for number in range(1, 7))])
    store.ledger.append([samples.credential_confirmation(number=number, at=later(600 * number + 60)) for number in range(1, 7)])
    found = store.dashboard.period_trend(NOW, later(4000), 5)
    assert [moment.count for moment in found.alive] == [None, None, None, 0, 0]
    assert (found.lifetimes.count, found.lifetimes.whole) == (3, False)


def test_decisions_beyond_the_limit_are_missed_even_if_some_of_the_newest_settled_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dashboard, "MAX_ROWS_PER_KIND", 2)
    for number, verdict in ((1, "approved"), (2, "approved"), (3, "pending")):
        asked = (samples.access_request(number=number), samples.access_decision("needs_approval", number=number, tier=1))
        opened = samples.approval_opening(number=number)
        store.ledger.append([*asked, opened, samples.approval_decision(verdict, number=number, at=later(10 * number))])
    found = store.dashboard.period_trend(NOW, later(3600), 2).approvals
    assert (found.count, found.whole) == (1, False)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(1, 50))), st.integers(1, 12))
def test_reconstructed_counts_equal_those_counted_at_each_moment(lives: list[tuple[int, int]], buckets: int) -> None:
    ends = [later(100 * part / buckets) for part in range(1, buckets + 1)]
    born = [later(begin) for begin, _ in lives]
    died = [later(begin + length) for begin, length in lives if begin + length <= 120]
    found = reconstruct_alive_counts(ends, now=len(born) - len(died), begun=born, ended=died, known_since=None)
    assert [moment.at for moment in found] == ends
    assert [moment.count for moment in found] == [
        sum(begin <= (end - NOW).total_seconds() < begin + length for begin, length in lives) for end in ends
    ]


@given(st.lists(st.floats(-5, 100_000)))
def test_a_histogram_counts_every_duration_in_exactly_one_bar(seconds: list[float]) -> None:
    found = build_histogram(seconds, whole=True)
    assert [bar.seconds for bar in found.bars] == [*HISTOGRAM_BOUNDS_S, None]
    assert sum(bar.count for bar in found.bars) == found.count == len(seconds)
    assert all(bar.count >= 0 for bar in found.bars)
    quantiles = [one for one in (found.p50, found.p90, found.p99, found.longest) if one is not None]
    assert quantiles == sorted(quantiles)
    assert quantiles[-1:] == ([max([0.0, *seconds])] if seconds else [])


@given(st.lists(st.integers(0, 100_000), min_size=1, max_size=250))
def test_a_histogram_has_the_quantiles_of_the_evidence_report(milliseconds: list[int]) -> None:
    seconds = sorted(duration / 1000 for duration in milliseconds)
    found = build_histogram(seconds, whole=True)
    assert [found.p50, found.p90, found.p99] == [nearest_rank(seconds, percent) for percent in (50, 90, 99)]
