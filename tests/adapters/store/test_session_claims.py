"""A job id is claimed once, ever; a closed claim never opens again."""

from __future__ import annotations

from justenough.adapters.store import SessionClaim, Store
from tests.adapters.store.event_samples import JOB, NOW, later


def test_a_claim_says_who_holds_it(store: Store) -> None:
    assert store.claims.get(JOB) is None
    assert store.claims.claim(JOB, run="run-1", owner="worker-1", now=NOW)
    assert store.claims.get(JOB) == SessionClaim(job=JOB, owner="worker-1", run="run-1", open=True, renewed_at=NOW, closed_at=None)


def test_a_job_is_claimed_once_even_by_the_same_owner(store: Store) -> None:
    assert store.claims.claim(JOB, run="run-1", owner="worker-1", now=NOW)
    assert not store.claims.claim(JOB, run="run-2", owner="worker-2", now=later(1))
    assert not store.claims.claim(JOB, run="run-1", owner="worker-1", now=later(1))


def test_its_owner_alone_renews_it(store: Store) -> None:
    store.claims.claim(JOB, run="run-1", owner="worker-1", now=NOW)
    assert store.claims.renew(JOB, "worker-1", later(5))
    assert not store.claims.renew(JOB, "worker-2", later(6))
    claim = store.claims.get(JOB)
    assert claim is not None
    assert claim.renewed_at == later(5)


def test_a_closed_claim_is_neither_renewed_nor_claimed_again(store: Store) -> None:
    store.claims.claim(JOB, run="run-1", owner="worker-1", now=NOW)
    store.claims.close(JOB, later(3))
    store.claims.close(JOB, later(4))
    assert not store.claims.renew(JOB, "worker-1", later(5))
    assert not store.claims.claim(JOB, run="run-2", owner="worker-2", now=later(6))
    claim = store.claims.get(JOB)
    assert claim is not None
    assert (claim.open, claim.closed_at, claim.renewed_at, claim.owner) == (False, later(3), NOW, "worker-1")


def test_closing_what_nobody_claimed_keeps_everybody_from_claiming_it(store: Store) -> None:
    store.claims.close(JOB, NOW)
    assert not store.claims.claim(JOB, run="run-1", owner="worker-1", now=later(1))
    assert store.claims.get(JOB) == SessionClaim(job=JOB, owner=None, run=None, open=False, renewed_at=NOW, closed_at=NOW)


def test_an_attempt_to_revoke_closes_the_claim_and_is_dated_anew_each_time(store: Store) -> None:
    store.claims.claim(JOB, run="run-1", owner="worker-1", now=NOW)
    for seconds in (3, 9):
        store.claims.end_issuing(JOB, later(seconds))
        claim = store.claims.get(JOB)
        assert claim is not None
        assert (claim.closed_at, claim.attempted_at) == (later(3), later(seconds))
