"""The outbox's tables on both databases: what must be delivered, who may settle it, dead letters, and sent notices."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

import pytest

from justenough.adapters.store import Store
from justenough.adapters.store.outbox_queries import DeliveryState, FailedDelivery, Settlement, lag_of
from justenough.domain.core.errors import InvalidInput
from justenough.domain.integrations.retry_policy import SentNotice
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import EntryView
from tests.adapters.store.event_samples import JOB, NOW, job_end, job_id, job_start, later, submission
from tests.adapters.store.test_ledger_writer import run_statements
from tests.adapters.store.test_queries import query_plans

ALL = tuple(EventType)
US, THEM = "us", "them"


@pytest.fixture
def held(store: Store) -> Store:
    """A store whose outbox is ours, with one subscription."""
    assert store.outbox.acquire_lease(US, now=NOW, until=later(15))
    assert store.outbox.keep_subscriptions({"siem": "webhook"}, holder=US, now=NOW)
    return store


def failures(entries: Iterable[EntryView], *, attempts: int = 1, again: float | None = 5) -> tuple[FailedDelivery, ...]:
    at = None if again is None else later(again)
    return tuple(FailedDelivery(entry=entry, attempts=attempts, next_at=at, why="503 Service Unavailable") for entry in entries)


def test_one_process_holds_the_lease_until_it_expires_or_is_released(store: Store) -> None:
    outbox = store.outbox
    assert outbox.acquire_lease(US, now=NOW, until=later(15))
    assert not outbox.acquire_lease(THEM, now=later(14), until=later(30))
    assert outbox.acquire_lease(US, now=later(14), until=later(29))
    assert outbox.acquire_lease(THEM, now=later(29), until=later(44))
    assert not outbox.acquire_lease(US, now=later(30), until=later(45))
    outbox.release_lease(US)
    assert not outbox.acquire_lease(US, now=later(30), until=later(45))
    outbox.release_lease(THEM)
    assert outbox.acquire_lease(US, now=later(30), until=later(45))


def test_a_lease_dated_in_the_future_by_a_wrong_clock_does_not_keep_others_from_delivering(store: Store) -> None:
    outbox = store.outbox
    # A console whose clock was a day ahead took the lease, and was killed before it could release it.
    assert outbox.acquire_lease(US, now=later(86_400), until=later(86_415))
    assert outbox.acquire_lease(THEM, now=NOW, until=later(15))
    # Consoles whose clocks differ a little do not take it from each other.
    assert not outbox.acquire_lease(US, now=later(-100), until=later(-85))


def test_a_new_subscription_gets_later_events_and_no_earlier_ones(store: Store) -> None:
    store.ledger.append([submission()])
    store.outbox.acquire_lease(US, now=NOW, until=later(15))
    store.outbox.keep_subscriptions({"siem": "webhook"}, holder=US, now=NOW)
    assert (store.outbox.status().head, store.outbox.status().positions) == (1, {"siem": 1})
    store.ledger.append([job_start(), job_end()])
    batch = store.outbox.next_batch([EventType.JOB_ENDED], after=1, limit=10)
    assert ([entry.type for entry in batch.entries], batch.position) == (["job.ended"], 3)
    assert store.outbox.next_batch([EventType.CREDENTIAL_ISSUED], after=1, limit=10).position == 3
    full = store.outbox.next_batch(ALL, after=1, limit=1)
    assert ([entry.type for entry in full.entries], full.position) == (["job.started"], 2)
    # Again is fine, and moves nothing.
    store.outbox.keep_subscriptions({"siem": "webhook"}, holder=US, now=later(1))
    assert store.outbox.status().positions == {"siem": 1}


def test_what_is_pending_is_found_without_reading_the_dead_letters(ready_file: object) -> None:
    found = [plan for plan in query_plans(f"sqlite:///{ready_file}", lambda one: one.outbox.status()) if "deliveries" in plan]
    assert found
    assert all("(subscription=? AND state=?" in plan for plan in found)


def test_a_delivery_that_failed_while_a_clock_was_ahead_does_not_wait_until_that_time(held: Store) -> None:
    held.ledger.append([submission(), job_start(), job_end()])
    ahead, usual = held.outbox.next_batch(ALL, after=0, limit=2).entries, held.outbox.next_batch(ALL, after=2, limit=1).entries
    assert held.outbox.acquire_lease(US, now=later(3_600), until=later(3_615))
    assert held.outbox.settle(Settlement(subscription="siem", at=later(3_600), position=2, failed=failures(ahead, again=3_605)), holder=US)
    # The clock was set back.
    assert held.outbox.acquire_lease(US, now=NOW, until=later(15))
    assert held.outbox.settle(Settlement(subscription="siem", at=NOW, position=3, failed=failures(usual)), holder=US)
    assert held.outbox.keep_subscriptions({"siem": "webhook"}, holder=US, now=later(1))
    assert held.outbox.due_batch("siem", now=later(1), limit=10).entries == ahead
    assert held.outbox.due_batch("siem", now=later(5), limit=10).entries == (*ahead, *usual)


def test_a_failed_delivery_waits_is_found_when_due_and_is_gone_once_delivered(held: Store) -> None:
    held.ledger.append([submission(), job_start(), job_end()])
    batch = held.outbox.next_batch(ALL, after=0, limit=10)
    first, *rest = batch.entries
    settled = Settlement(subscription="siem", at=NOW, position=batch.position, delivered=(first.position,), failed=failures(rest))
    assert held.outbox.settle(settled, holder=US)
    assert held.outbox.status().due == {"siem": later(5)}
    assert held.outbox.count_pending("siem") == 2
    assert held.outbox.due_batch("siem", now=later(4), limit=10).entries == ()
    due = held.outbox.due_batch("siem", now=later(5), limit=10)
    assert (due.entries, due.position, set(due.attempts.values())) == (tuple(rest), None, {1})
    again = Settlement(subscription="siem", at=later(6), delivered=(rest[0].position,), failed=failures(rest[1:], attempts=2, again=None))
    assert held.outbox.settle(again, holder=US)
    (dead,) = held.outbox.deliveries("siem", state=DeliveryState.DEAD, limit=10, cursor=None).items
    assert (dead.event, dead.attempts, dead.next_at, dead.why) == (rest[1].id, 2, None, "503 Service Unavailable")
    assert held.outbox.count_pending("siem") == 0
    (standing,) = held.outbox.subscription_progress()
    assert (standing.position, standing.delivered, standing.pending, standing.dead) == (3, 2, 0, 1)
    assert standing.why == "503 Service Unavailable"


def test_a_process_that_lost_the_lease_cannot_settle_deliveries_or_keep_subscriptions(held: Store) -> None:
    held.ledger.append([submission()])
    assert held.outbox.acquire_lease(THEM, now=later(15), until=later(30))
    entries = held.outbox.next_batch(ALL, after=0, limit=10).entries
    for at in (later(1), later(16)):
        assert not held.outbox.settle(Settlement(subscription="siem", at=at, position=1, failed=failures(entries)), holder=US)
        assert not held.outbox.keep_subscriptions({"other": "webhook"}, holder=US, now=at)
    assert held.outbox.status().positions == {"siem": 0}
    assert held.outbox.count_pending("siem") == 0


def test_a_process_cannot_settle_after_its_lease_expired_even_if_nobody_took_it(held: Store) -> None:
    held.ledger.append([submission()])
    assert not held.outbox.settle(Settlement(subscription="siem", at=later(15), position=1), holder=US)
    assert held.outbox.settle(Settlement(subscription="siem", at=later(14), position=1), holder=US)


def test_the_position_of_a_subscription_never_goes_back_unless_the_ledger_ends_before_it(held: Store, url: str) -> None:
    held.ledger.append([submission(job_id(number)) for number in range(5)])
    for settled, kept in ((5, 5), (3, 5), (6, 5)):
        assert held.outbox.settle(Settlement(subscription="siem", at=NOW, position=settled), holder=US) is (settled <= 5)
        assert held.outbox.status().positions == {"siem": kept}
    run_statements(url, "UPDATE subscriptions SET position = 9")
    assert held.outbox.settle(Settlement(subscription="siem", at=NOW, position=3), holder=US)
    assert held.outbox.status().positions == {"siem": 3}


def test_dead_letters_are_sent_again_one_by_one_or_all(held: Store) -> None:
    held.ledger.append([submission(), job_start(), job_end()])
    batch = held.outbox.next_batch(ALL, after=0, limit=10)
    one, two, three = batch.entries
    rows = (*failures([one, two], attempts=8, again=None), *failures([three]))
    held.outbox.settle(Settlement(subscription="siem", at=NOW, position=3, failed=rows), holder=US)
    dead = held.outbox.deliveries("siem", state=DeliveryState.DEAD, limit=10, cursor=None).items
    waits = held.outbox.deliveries("siem", state=DeliveryState.PENDING, limit=10, cursor=None).items[0]
    assert held.outbox.status().again == {}
    assert held.outbox.resend("siem", [waits.id, "d-unknown"], now=later(1)) == 0
    assert held.outbox.resend("other", [dead[0].id], now=later(1)) == 0
    assert held.outbox.resend("siem", [dead[0].id], now=later(1)) == 1
    assert held.outbox.status().again == {"siem": later(1)}
    assert held.outbox.resend("siem", None, now=later(1)) == 1
    assert held.outbox.due_batch("siem", now=later(1), limit=10).attempts == {one.position: 0, two.position: 0}


def test_deliveries_are_paged(held: Store) -> None:
    held.ledger.append([submission(job_id(number), at=later(number)) for number in range(1, 6)])
    batch = held.outbox.next_batch(ALL, after=0, limit=10)
    held.outbox.settle(Settlement(subscription="siem", at=NOW, position=5, failed=failures(batch.entries)), holder=US)
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = held.outbox.deliveries("siem", state=None, limit=2, cursor=cursor)
        seen += [item.job for item in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == [job_id(number) for number in range(5, 0, -1)]
    with pytest.raises(InvalidInput):
        held.outbox.deliveries("siem", state=None, limit=2, cursor="nonsense")


def test_notified_people_are_remembered_until_the_request_is_settled(held: Store) -> None:
    first, second = (SentNotice(about="request/r-1", target=f"kv/data/x#{name}", tier=1, job=JOB) for name in ("a", "b"))
    held.outbox.settle(Settlement(subscription="siem", at=NOW, sent_notices=(first, second)), holder=US)
    assert held.outbox.unsettled_notices("siem", JOB) == (first, second)
    assert held.outbox.unsettled_notices("other", JOB) == held.outbox.unsettled_notices("siem", job_id(1)) == ()
    climbed = SentNotice(about=first.about, target=first.target, tier=2, job=JOB)
    held.outbox.settle(Settlement(subscription="siem", at=NOW, sent_notices=(climbed,), settled_notices=(second,)), holder=US)
    assert held.outbox.unsettled_notices("siem", JOB) == (climbed,)


def test_a_subscription_missing_for_over_a_week_is_forgotten_with_its_deliveries(held: Store) -> None:
    held.ledger.append([submission()])
    entries = held.outbox.next_batch(ALL, after=0, limit=10).entries
    told = (SentNotice(about="request/r-1", target="kv/data/x#a", tier=1, job=JOB),)
    held.outbox.settle(Settlement(subscription="siem", at=NOW, position=1, failed=failures(entries), sent_notices=told), holder=US)
    week = NOW + timedelta(days=7)
    for now, left in ((week, {"siem", "other"}), (week + timedelta(seconds=1), {"other"})):
        held.outbox.acquire_lease(US, now=now, until=now + timedelta(seconds=15))
        held.outbox.keep_subscriptions({"other": "webhook"}, holder=US, now=now)
        assert set(held.outbox.status().positions) == left
    assert held.outbox.deliveries("siem", state=None, limit=10, cursor=None).items == ()
    assert held.outbox.unsettled_notices("siem", JOB) == ()


def test_lag_is_the_age_of_the_oldest_undelivered_event(held: Store) -> None:
    assert lag_of(held.outbox.subscription_progress()[0], later(100)) == 0
    held.ledger.append([submission(), job_start(at=later(10))])
    assert lag_of(held.outbox.subscription_progress()[0], later(100)) == 100
    batch = held.outbox.next_batch(ALL, after=0, limit=1)
    held.outbox.settle(Settlement(subscription="siem", at=NOW, position=1, delivered=(1,)), holder=US)
    assert lag_of(held.outbox.subscription_progress()[0], later(100)) == 90
    held.outbox.settle(Settlement(subscription="siem", at=NOW, position=2, failed=failures(batch.entries)), holder=US)
    assert lag_of(held.outbox.subscription_progress()[0], later(100)) == 100
    held.outbox.settle(Settlement(subscription="siem", at=NOW, failed=failures(batch.entries, again=None)), holder=US)
    assert lag_of(held.outbox.subscription_progress()[0], later(100)) == 0
