"""Wrapping tokens of locked requests: stored together with their record, taken by one worker, deleted with their job."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from justenough.adapters.store import Store, StoredWrappingToken
from justenough.domain.core.ids import request_id
from justenough.domain.ledger.events import Event, EventType, build_event
from tests.adapters.store.event_samples import JOB, access_request, job_end, later, submission

REQUEST = request_id(JOB, 1)

KEPT = StoredWrappingToken(request=REQUEST, job=JOB, accessor="the-accessor", token_accessor="the-tokens", ciphertext="vault:v1:…")


def lock_opening() -> Event:
    told = {"accessor": KEPT.accessor, "expires_at": later(60).isoformat(), "groups": ["security"], "approvals": 1}
    return build_event(EventType.LOCK_OPENED, JOB, at=later(1), about=REQUEST, request=REQUEST, **told)


def test_a_wrapped_token_is_stored_once_and_the_request_shows_only_its_accessor(store: Store) -> None:
    store.ledger.append([submission(), access_request()])
    assert store.wrapped_tokens.keep(KEPT, [lock_opening()])
    assert not store.wrapped_tokens.keep(KEPT.model_copy(update={"ciphertext": "another"}), [lock_opening()])
    assert store.wrapped_tokens.get(REQUEST) == KEPT
    view = store.requests.get(REQUEST)
    assert view is not None
    assert view.lock is not None
    assert (view.lock.accessor, view.lock.expires_at) == (KEPT.accessor, later(60))
    assert KEPT.ciphertext not in view.model_dump_json() + str(store.ledger.entries(job=JOB).items)


def test_only_one_of_many_concurrent_callers_takes_a_wrapped_token(store: Store) -> None:
    store.wrapped_tokens.keep(KEPT, [])
    with ThreadPoolExecutor(8) as pool:
        got = [found for found in pool.map(lambda _: store.wrapped_tokens.take(REQUEST), range(8)) if found]
    assert got == [KEPT]
    assert store.wrapped_tokens.get(REQUEST) is None


def test_no_wrapped_token_is_kept_once_issuing_has_ended_for_a_job(store: Store) -> None:
    store.wrapped_tokens.keep(KEPT, [])
    assert store.claims.end_issuing(JOB, later(2)) == (KEPT,)
    assert store.claims.end_issuing(JOB, later(3)) == ()
    assert not store.wrapped_tokens.keep(KEPT, [lock_opening()])
    assert store.wrapped_tokens.get(REQUEST) is None
    assert store.ledger.entries(job=JOB).items == ()


def test_the_wrapped_token_of_an_ended_job_is_deleted(store: Store) -> None:
    store.ledger.append([submission(), access_request()])
    store.wrapped_tokens.keep(KEPT, [lock_opening()])
    store.ledger.append([job_end(at=later(5))])
    assert store.wrapped_tokens.get(REQUEST) is None
