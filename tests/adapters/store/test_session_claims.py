"""A job id is claimed once, ever; a closed claim never opens again. A job that runs has one of its launcher's places."""

from __future__ import annotations

import pytest

from justenough.adapters.store import ClaimResult, SessionClaim, Store
from justenough.domain.ledger.events import EventType, build_event
from tests.adapters.store.event_samples import JOB, NOW, SIGNED, job_end, later, submission
from tests.support.claims import claim_job


def test_a_claim_names_its_owner_and_its_run(store: Store) -> None:
    assert store.claims.get(JOB) is None
    assert claim_job(store, JOB, run="run-1", owner="worker-1", now=NOW)
    assert store.claims.get(JOB) == SessionClaim(job=JOB, owner="worker-1", run="run-1", open=True, renewed_at=NOW, closed_at=None)


def test_a_job_is_claimed_once_even_by_the_same_owner(store: Store) -> None:
    assert claim_job(store, JOB, run="run-1", owner="worker-1", now=NOW)
    assert not claim_job(store, JOB, run="run-2", owner="worker-2", now=later(1))
    assert not claim_job(store, JOB, run="run-1", owner="worker-1", now=later(1))


def test_only_the_owner_of_a_claim_can_renew_it(store: Store) -> None:
    claim_job(store, JOB, run="run-1", owner="worker-1", now=NOW)
    assert store.claims.renew(JOB, "worker-1", later(5))
    assert not store.claims.renew(JOB, "worker-2", later(6))
    claim = store.claims.get(JOB)
    assert claim is not None
    assert claim.renewed_at == later(5)


def test_a_closed_claim_is_neither_renewed_nor_claimed_again(store: Store) -> None:
    claim_job(store, JOB, run="run-1", owner="worker-1", now=NOW)
    store.claims.close(JOB, later(3))
    store.claims.close(JOB, later(4))
    assert not store.claims.renew(JOB, "worker-1", later(5))
    assert not claim_job(store, JOB, run="run-2", owner="worker-2", now=later(6))
    claim = store.claims.get(JOB)
    assert claim is not None
    assert (claim.open, claim.closed_at, claim.renewed_at, claim.owner) == (False, later(3), NOW, "worker-1")


def test_a_job_closed_before_it_was_claimed_can_no_longer_be_claimed(store: Store) -> None:
    store.claims.close(JOB, NOW)
    assert not claim_job(store, JOB, run="run-1", owner="worker-1", now=later(1))
    assert store.claims.get(JOB) == SessionClaim(job=JOB, owner=None, run=None, open=False, renewed_at=NOW, closed_at=NOW)


def test_an_attempt_to_revoke_closes_the_claim_and_is_dated_again_each_time(store: Store) -> None:
    claim_job(store, JOB, run="run-1", owner="worker-1", now=NOW)
    for seconds in (3, 9):
        store.claims.end_issuing(JOB, later(seconds))
        claim = store.claims.get(JOB)
        assert claim is not None
        assert (claim.closed_at, claim.attempted_at) == (later(3), later(seconds))


@pytest.mark.parametrize("about", ["cancel/e-ops", "kill/e-ops", ""])
def test_a_recorded_stop_ends_issuing_but_not_the_claim(store: Store, about: str) -> None:
    # The ids of two jobs may differ in the last character only.
    other = f"{JOB[:-1]}b"
    for job in (JOB, other):
        claim_job(store, job, run="run-1", owner="worker-1", now=NOW)
    who = {"person": "e-ops", "name": "ops"}
    withdrawal = {"request": f"r{JOB[1:]}-1", "signed": SIGNED}
    store.ledger.append([submission(), build_event(EventType.WITHDRAWAL_REQUESTED, JOB, at=NOW, about="1", **withdrawal, **who)])
    claims = [store.claims.get(job) for job in (JOB, other)]
    assert [claim and claim.may_issue("worker-1") for claim in claims] == [True, True]
    store.ledger.append([build_event(EventType.STOP_REQUESTED, JOB, at=later(1), about=about, how="cancel", **who)])
    claims = [store.claims.get(job) for job in (JOB, other)]
    assert [claim and claim.may_issue("worker-1") for claim in claims] == [False, True]
    assert [claim and claim.is_held_by("worker-1") for claim in claims] == [True, True]


def claim_in_place(store: Store, job: str, *, launcher: str = "e-ops", places: int = 2) -> ClaimResult:
    """Claim a job for a run of its own."""
    return store.claims.claim(job, run=f"run of {job}", owner="a worker", launcher=launcher, places=places, now=NOW)


def test_each_account_has_its_own_limited_number_of_places(store: Store) -> None:
    assert [claim_in_place(store, job) for job in ("j-1", "j-2", "j-3")] == [ClaimResult.CLAIMED, ClaimResult.CLAIMED, ClaimResult.NO_PLACE]
    assert store.claims.get("j-3") is None
    assert claim_in_place(store, "j-4", launcher="schedule:nightly") is ClaimResult.CLAIMED
    assert claim_in_place(store, "j-1") is ClaimResult.ALREADY_RAN


def test_a_place_is_free_again_once_its_session_has_ended(store: Store) -> None:
    claim_in_place(store, "j-1", places=1)
    assert not store.claims.take_place("j-2", launcher="e-ops", places=1)
    store.claims.end_issuing("j-1", later(1))
    assert store.claims.take_place("j-2", launcher="e-ops", places=1)
    # Taken once, however often it is asked for; the claim uses the same place.
    assert store.claims.take_place("j-2", launcher="e-ops", places=1)
    assert claim_in_place(store, "j-2", places=1) is ClaimResult.CLAIMED
    assert claim_in_place(store, "j-3", places=1) is ClaimResult.NO_PLACE


def test_an_ended_job_frees_its_place_and_takes_none_in_a_late_attempt(store: Store) -> None:
    store.ledger.append([submission()])
    assert store.claims.take_place(JOB, launcher="e-ops", places=1)
    store.ledger.append([job_end("cancelled", at=later(1))])
    for over in (JOB, "j-closed"):
        store.claims.close("j-closed", later(1))
        assert store.claims.take_place(over, launcher="e-ops", places=1)
    assert store.claims.take_place("j-2", launcher="e-ops", places=1)
