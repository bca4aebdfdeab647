"""What opens locked requests: kept with its record in one step, taken by one, gone with its job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from justenough.adapters.store import Store, StoredWrappingToken
from justenough.domain.core.ids import request_id
from justenough.domain.ledger.events import Event, EventType, build_event
from tests.store.facts import JOB, ended, later, requested, submitted

REQUEST = request_id(JOB, 1)

KEPT = StoredWrappingToken(request=REQUEST, job=JOB, accessor="the-accessor", token_accessor="the-tokens", ciphertext="vault:v1:…")


def opened() -> Event:
    told = {"accessor": KEPT.accessor, "expires_at": later(60).isoformat(), "groups": ["security"], "approvals": 1}
    return build_event(EventType.LOCK_OPENED, JOB, at=later(1), about=REQUEST, request=REQUEST, **told)


def test_a_lock_is_kept_once_with_its_record_and_shows_its_accessor_alone(store: Store) -> None:
    store.record([submitted(), requested()])
    assert store.keep_wrapping_token(KEPT, [opened()])
    assert not store.keep_wrapping_token(KEPT.model_copy(update={"ciphertext": "another"}), [opened()])
    assert store.wrapping_token_of(REQUEST) == KEPT
    view = store.request(REQUEST)
    assert view is not None
    assert view.lock is not None
    assert (view.lock.accessor, view.lock.expires_at) == (KEPT.accessor, later(60))
    assert KEPT.ciphertext not in view.model_dump_json() + str(store.ledger(job=JOB).items)


def test_of_many_who_take_a_lock_at_once_one_gets_it(store: Store) -> None:
    store.keep_wrapping_token(KEPT, [])
    with ThreadPoolExecutor(8) as pool:
        got = [found for found in pool.map(lambda _: store.take_wrapping_token(REQUEST), range(8)) if found]
    assert got == [KEPT]
    assert store.wrapping_token_of(REQUEST) is None


def test_nothing_is_kept_for_a_job_that_may_not_be_issued_anything_any_more(store: Store) -> None:
    store.keep_wrapping_token(KEPT, [])
    assert store.end_issuing(JOB, later(2)) == (KEPT,)
    assert store.end_issuing(JOB, later(3)) == ()
    assert not store.keep_wrapping_token(KEPT, [opened()])
    assert store.wrapping_token_of(REQUEST) is None
    assert store.ledger(job=JOB).items == ()


def test_nothing_is_kept_for_a_job_that_has_ended(store: Store) -> None:
    store.record([submitted(), requested()])
    store.keep_wrapping_token(KEPT, [opened()])
    store.record([ended(at=later(5))])
    assert store.wrapping_token_of(REQUEST) is None
