"""What needs attention, on both databases; what ends it; and who acknowledged it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from justenough.adapters.store import Store, attention
from justenough.adapters.store.attention import MAX_ITEMS_PER_KIND
from justenough.adapters.store.outbox_queries import FailedDelivery, Settlement
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType, build_event
from justenough.domain.readmodel.attention import AttentionItem
from justenough.domain.readmodel.dashboard import JobFilter
from justenough.domain.readmodel.views import WorkerView
from tests.adapters.store import event_samples as samples
from tests.adapters.store.event_samples import NOW, job_id, later, part_id

SILENCE = timedelta(seconds=60)
DAY_S = 86_400


def items(store: Store, *, seconds: float = 0, **only: str) -> list[AttentionItem]:
    return list(store.attention.items(JobFilter(**only), now=later(seconds), worker_silence=SILENCE))


def keys(store: Store, *, seconds: float = 0, **only: str) -> list[str]:
    return [item.key for item in items(store, seconds=seconds, **only)]


def record_end(store: Store, number: int, state: str, *, seconds: float = 1, **changes: Any) -> str:
    job = job_id(number)
    store.ledger.append([samples.submission(job, **changes), samples.job_end(state, job, at=later(seconds))])
    return job


def record_request(store: Store, number: int, *, tier: int = 1) -> str:
    job = job_id(number)
    store.ledger.append([samples.submission(job), samples.access_request(job), samples.access_decision("needs_approval", job, tier=tier)])
    store.ledger.append([samples.approval_opening(job, tier=tier)])
    return part_id(job, "r")


def acknowledge(store: Store, key: str, name: str, *, seconds: float) -> None:
    said = {"item": key, "person": f"e-{name}", "name": name, "note": f"{name} has it"}
    event = build_event(EventType.ATTENTION_ACKNOWLEDGED, UNATTRIBUTED_CHAIN, at=later(seconds), about=f"{key}/{name}", **said)
    store.ledger.append([event])


def test_an_empty_store_needs_no_attention(store: Store) -> None:
    assert keys(store) == []


def test_a_failed_job_is_listed_with_its_last_line_until_a_job_of_its_name_succeeds_or_a_day_passes(store: Store) -> None:
    job = record_end(store, 1, "failed", name="reconcile")
    store.logs.append(job, 0, "fetched 12 invoices\nTraceback:\n", NOW)
    store.logs.append(job, 1, "  KeyError: 'invoice_total'\n\n", NOW)
    (found,) = items(store)
    assert (found.key, found.subject, found.job, found.requester_id, found.since) == (f"failed/{job}", "reconcile", job, "e-ops", later(1))
    assert found.detail.endswith("; last output: KeyError: 'invoice_total'")
    assert keys(store, seconds=86_400) == [f"failed/{job}"]
    assert keys(store, seconds=86_402) == []
    record_end(store, 2, "succeeded", name="another")
    assert keys(store) == [f"failed/{job}"]
    record_end(store, 3, "succeeded", name="reconcile")
    assert keys(store) == []


def test_a_job_that_failed_for_a_named_reason_is_listed_with_the_reason_in_words(store: Store) -> None:
    store.ledger.append(
        [samples.submission(job_id(1)), samples.job_end("failed", job_id(1), at=later(1), exit_code=None, reason="worker_stopped")]
    )
    (found,) = items(store)
    assert found.detail == "its worker was shut down while the job ran (worker_stopped)"


def test_a_failed_job_is_listed_although_its_id_is_from_a_clock_that_was_behind(store: Store) -> None:
    record_end(store, 2, "succeeded", name="reconcile")
    submitted = samples.submission(job_id(1), at=later(60), name="reconcile")
    store.ledger.append([submitted, samples.job_end("failed", job_id(1), at=later(61))])
    assert keys(store, seconds=62) == [f"failed/{job_id(1)}"]


def test_jobs_that_people_stopped_or_that_succeeded_need_no_attention(store: Store) -> None:
    for number, state in enumerate(("succeeded", "cancelled", "killed")):
        record_end(store, number, state, name=f"job-{state}")
    assert keys(store) == []
    bad = [record_end(store, number, state, name=f"job-{state}") for number, state in enumerate(("failed", "timed_out", "lost"), 3)]
    assert set(keys(store)) == {f"failed/{job}" for job in bad}


def test_a_request_is_listed_once_half_of_its_time_is_over_or_it_escalated_and_until_it_is_decided(store: Store) -> None:
    request = record_request(store, 1)
    assert keys(store, seconds=449) == []
    (late,) = items(store, seconds=451)
    assert (late.key, late.request, late.detail) == (f"waiting/{request}/1", request, "write on orders-db")
    assert (late.tier, late.until) == (1, NOW + timedelta(minutes=15))
    store.ledger.append([samples.approval_opening(job_id(1), tier=2, at=later(900), escalated=True)])
    assert keys(store, seconds=901) == [f"escalated/{request}/2"]
    store.ledger.append([samples.approval_decision("denied", job_id(1), decision="deny")])
    assert keys(store, seconds=901) == []


def test_a_running_jobs_request_is_listed_once_half_of_the_time_until_the_jobs_timeout_is_over(store: Store) -> None:
    job = job_id(1)
    store.ledger.append([samples.submission(job), samples.job_start(job), samples.access_request(job)])
    store.ledger.append([samples.access_decision("needs_approval", job, tier=1), samples.approval_opening(job, respond_by=later(DAY_S))])
    assert keys(store, seconds=1_799) == []
    (late,) = items(store, seconds=1_801)
    assert (late.key, late.until) == (f"waiting/{part_id(job, 'r')}/1", later(3_600))


def test_of_very_many_pending_requests_those_that_end_first_with_their_job_or_alone_are_examined(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "MAX_PENDING_REQUESTS", 1)
    for number, started in ((1, [samples.job_start(job_id(1))]), (2, [])):
        job = job_id(number)
        store.ledger.append([samples.submission(job), *started, samples.access_request(job)])
        opening = samples.approval_opening(job, respond_by=later(DAY_S if started else 7_200))
        store.ledger.append([samples.access_decision("needs_approval", job, tier=1), opening])
    assert keys(store, seconds=1_801) == [f"waiting/{part_id(job_id(1), 'r')}/1"]


def test_jobs_that_policy_denied_are_listed_and_those_that_a_person_denied_are_not(store: Store) -> None:
    job = job_id(1)
    store.ledger.append([samples.submission(job), samples.access_request(job), samples.access_decision("denied", job)])
    record_request(store, 2)
    store.ledger.append([samples.approval_decision("denied", job_id(2), decision="deny")])
    (found,) = items(store)
    assert (found.key, found.detail) == (f"denied/{job}", "policy denied write on orders-db")
    store.ledger.append([samples.access_request(job, number=2), samples.access_decision("denied", job, number=2)])
    assert [item.detail for item in items(store)] == ["policy denied 2 requests"]


def test_a_job_that_policy_denied_although_a_person_had_approved_it_is_listed(store: Store) -> None:
    record_request(store, 1)
    denied_at_issue = samples.access_decision("denied", job_id(1), phase="issue", at=later(60))
    store.ledger.append([samples.approval_decision("approved", job_id(1)), denied_at_issue])
    assert keys(store, seconds=60) == [f"denied/{job_id(1)}"]


def test_a_job_that_policy_denied_days_after_its_request_is_listed_for_a_day(store: Store) -> None:
    record_request(store, 1)
    days = 3 * DAY_S
    denied_at_issue = samples.access_decision("denied", job_id(1), phase="issue", at=later(days))
    ended = samples.job_end("denied", job_id(1), at=later(days))
    store.ledger.append([samples.approval_decision("approved", job_id(1), at=later(days - 1)), denied_at_issue, ended])
    (found,) = items(store, seconds=days + DAY_S)
    assert (found.key, found.since) == (f"denied/{job_id(1)}", later(days))
    assert keys(store, seconds=days + DAY_S + 1) == []


def test_a_late_denial_is_not_left_out_because_of_earlier_ones_of_newer_requests(store: Store) -> None:
    late, days = job_id(1), 3 * DAY_S
    record_request(store, 1)
    for number in range(2, MAX_ITEMS_PER_KIND + 2):
        job, at = job_id(number), later(days)
        store.ledger.append(
            [samples.submission(job, at=at), samples.access_request(job, at=at), samples.access_decision("denied", job, at=at)]
        )
    denied_at_issue = samples.access_decision("denied", late, phase="issue", at=later(days + 60))
    store.ledger.append([denied_at_issue, samples.job_end("denied", late, at=later(days + 60))])
    found = keys(store, seconds=days + 90)
    assert f"denied/{late}" in found
    assert len(found) == MAX_ITEMS_PER_KIND


def test_a_subscription_that_cannot_send_anything_is_listed_until_it_can(store: Store) -> None:
    store.outbox.acquire_lease("us", now=NOW, until=later(60))
    store.outbox.keep_subscriptions({"siem": "webhook"}, holder="us", now=NOW)
    store.ledger.append([samples.submission()])
    for seconds in (1, 2):
        assert store.outbox.settle(Settlement(subscription="siem", at=later(seconds), trouble="its secret cannot be read"), holder="us")
    (item,) = items(store, seconds=60)
    # The failure began only once, so an acknowledgement stays.
    assert (item.key, item.detail, item.since) == ("webhook/siem", "its secret cannot be read", later(1))
    assert store.outbox.settle(Settlement(subscription="siem", at=later(3), delivered=(1,), position=1), holder="us")
    assert items(store, seconds=60) == []


def test_a_failing_subscription_a_skipped_run_and_a_silent_worker_are_listed(store: Store) -> None:
    store.outbox.acquire_lease("us", now=NOW, until=later(60))
    store.outbox.keep_subscriptions({"siem": "webhook"}, holder="us", now=NOW)
    at = "2026-01-31T09:30:00Z"
    skipped = build_event(EventType.SCHEDULE_SKIPPED, samples.JOB, at=NOW, about=at, schedule="nightly", occasion=at)
    store.ledger.append([samples.submission(), skipped])
    (entry, *_) = store.outbox.next_batch(list(EventType), after=0, limit=10).entries
    failed = FailedDelivery(entry=entry, attempts=1, next_at=later(30), why="503 Service Unavailable")
    assert store.outbox.settle(Settlement(subscription="siem", at=later(1), position=2, failed=(failed,)), holder="us")
    store.workers.report(WorkerView(name="worker-2", version="1", config_digest=None, config_alarm=None, last_seen=NOW))
    webhook, schedule = items(store, seconds=60)
    assert (webhook.key, webhook.detail, webhook.since) == ("webhook/siem", "1 delivery failed: 503 Service Unavailable", later(1))
    assert (schedule.key, schedule.subject) == (f"schedule/nightly/{at}", "nightly")
    assert keys(store, seconds=61) == ["webhook/siem", f"schedule/nightly/{at}", "worker/worker-2"]
    assert "worker/worker-2" in keys(store, seconds=DAY_S)
    assert "worker/worker-2" not in keys(store, seconds=DAY_S + 1)
    # A filter is about jobs.
    assert keys(store, seconds=61, team="support") == []


def test_a_filter_leaves_only_the_jobs_that_it_names(store: Store) -> None:
    agent = {"name": "payout-agent", "version": "1", "model": "scripted", "owner": "billing"}
    support = record_end(store, 1, "failed", name="a")
    billing = record_end(store, 2, "failed", name="b", labels={"team": "billing"}, environment="test", agent=agent)
    assert set(keys(store)) == {f"failed/{support}", f"failed/{billing}"}
    for only in ({"team": "billing"}, {"environment": "test"}, {"agent": "payout-agent"}, {"team": "billing", "agent": "payout-agent"}):
        found = store.attention.items(JobFilter(**only), now=NOW, worker_silence=SILENCE)
        assert [item.key for item in found] == [f"failed/{billing}"], only
    assert keys(store, team="billing", environment="prod") == []
    values = store.dashboard.filter_values(later(2))
    assert (values.teams, values.environments, values.agents) == (
        ("billing", "support"),
        ("prod", "test"),
        ("payout-agent", "refund-agent"),
    )


def test_the_newest_acknowledgement_of_an_item_counts_in_whatever_order_they_are_recorded(store: Store) -> None:
    acknowledge(store, "webhook/siem", "lead", seconds=5)
    acknowledge(store, "webhook/siem", "chief", seconds=9)
    acknowledge(store, "webhook/siem", "ops", seconds=1)
    found = store.attention.acknowledgements(["webhook/siem", "webhook/other"])
    assert {key: (one.person, one.note, one.at) for key, one in found.items()} == {"webhook/siem": ("chief", "chief has it", later(9))}


def test_results_are_counted_by_the_quarter_of_an_hour_in_which_jobs_ended(store: Store) -> None:
    for number, (state, seconds) in enumerate(
        [("succeeded", -1), ("succeeded", 0), ("failed", 899), ("killed", 899), ("lost", 900), ("succeeded", -86_400)]
    ):
        record_end(store, number, state, seconds=seconds, labels={"team": "billing" if state == "lost" else "support"})
    width = timedelta(minutes=15)
    found = store.dashboard.job_results(until=later(1_000), width=width, parts=3)
    assert [(part.begin, part.succeeded, part.failed, part.stopped, part.count) for part in found] == [
        (later(-900), 1, 0, 0, 1),
        (later(0), 1, 1, 1, 3),
        (later(900), 0, 1, 0, 1),
    ]
    only = store.dashboard.job_results(until=later(1_000), width=width, parts=3, only=JobFilter(team="billing"))
    assert [part.count for part in only] == [0, 0, 1]
    assert sum(part.count for part in store.dashboard.job_results(until=later(1_000), width=width, parts=192)) == 6


def test_counts_follow_the_filter(store: Store) -> None:
    for number, team in enumerate(("support", "billing")):
        job = job_id(number)
        store.ledger.append([samples.submission(job, labels={"team": team}), samples.job_start(job), samples.issuance(job)])
        store.ledger.append([samples.access_request(job, number=2), samples.access_decision("needs_approval", job, number=2, tier=1)])
        store.ledger.append([samples.approval_opening(job, number=2)])
    whole, one = (store.dashboard.current_counts(NOW, JobFilter(team=team)) for team in ("", "billing"))
    assert [(found.live_credentials, sum(found.jobs.values()), found.open_requests) for found in (whole, one)] == [(2, 2, 2), (1, 1, 1)]
    assert whole.longest_wait == NOW


def test_what_nobody_has_acknowledged_is_not_crowded_out_by_what_somebody_has(store: Store) -> None:
    failed = [record_end(store, number, "failed", name=f"fails-{number}", seconds=number) for number in range(1, MAX_ITEMS_PER_KIND + 2)]
    for job in failed[1:]:
        acknowledge(store, f"failed/{job}", "lead", seconds=100)
    assert f"failed/{failed[0]}" in keys(store)
    denied = [job_id(number) for number in range(100, 100 + MAX_ITEMS_PER_KIND + 1)]
    for seconds, job in enumerate(denied):
        at = later(seconds)
        store.ledger.append([samples.submission(job), samples.access_request(job, at=at), samples.access_decision("denied", job, at=at)])
    for job in denied[1:]:
        acknowledge(store, f"denied/{job}", "lead", seconds=100)
    assert f"denied/{denied[0]}" in keys(store)
    late = [record_request(store, number) for number in range(200, 200 + MAX_ITEMS_PER_KIND + 1)]
    for request in late[:-1]:
        acknowledge(store, f"waiting/{request}/1", "lead", seconds=451)
    assert f"waiting/{late[-1]}/1" in keys(store, seconds=452)
