"""A job is closed with a proof that its ledger could not record: the job is checked again, and stays open if nobody can check it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.testing import ActivityEnvironment

from activities.job_activities import JobActivities, ProofNotChecked
from activities.revocation.revoke import revoke
from justenough.adapters.store import Store
from justenough.domain.contracts.workflow_messages import CloseInput, JobResult
from justenough.domain.jobs.states import JobState, RevocationState
from justenough.domain.ledger.events import Event
from tests.activities.revocation_calls import lose_an_issue, revocation_state
from tests.activities.vault_shop import Desk, Held

pytestmark = pytest.mark.servers


def revoke_without_store(at: Desk, job: str, held: Held) -> tuple[Event, ...]:
    """Revoke while the store is away; return what the ledger could not take."""
    without = replace(at.deps, store=Store("postgresql://nobody:nothing@127.0.0.1:1/none"))
    result = revoke(without, job, by="session", settled=True, why="it ended", known=(held.credential,))
    assert result.confirmed
    return result.events


def close_job(at: Desk, job: str, unrecorded: tuple[Event, ...]) -> JobResult:
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=job)
    closing = CloseInput(job=job, state=JobState.SUCCEEDED, exit_code=0, unrecorded=unrecorded)
    return environment.run(JobActivities(at.deps).close, closing)


def test_a_proof_that_the_ledger_could_not_take_is_recorded_when_the_job_closes(at: Desk) -> None:
    job = at.job()
    assert close_job(at, job, revoke_without_store(at, job, at.issue(job))).state is JobState.SUCCEEDED
    assert at.entry_types(job)[-2:] == ["revocation.confirmed", "job.ended"]
    assert revocation_state(at, job) is RevocationState.CONFIRMED


def test_an_irrevocable_credential_is_recorded_as_residual_when_the_job_closes(at: Desk) -> None:
    job = at.job()
    close_job(at, job, revoke_without_store(at, job, at.issue(job, 3)))
    assert "credential.residual" in at.entry_types(job)
    assert revocation_state(at, job) is RevocationState.RESIDUAL


def test_a_job_whose_access_no_worker_has_revoked_is_left_to_the_sweep_and_is_not_clean(at: Desk) -> None:
    # An attacker took the revocation's task and answered that all is dead, and the session died before it recorded the credential.
    job, _ = lose_an_issue(at)
    close_job(at, job, ())
    assert at.entry_types(job)[-2:] == ["job.ended", "revocation.started"]
    assert revocation_state(at, job) is RevocationState.PENDING
    assert job in at.deps.store.jobs.open(at.deps.now() + timedelta(seconds=1))
    close_job(at, job, ())
    assert at.entry_types(job)[-2:] == ["job.ended", "revocation.started"]


def test_a_job_stays_open_while_the_target_of_its_carried_proof_is_away(at: Desk) -> None:
    job = at.job()
    events = revoke_without_store(at, job, at.issue(job))
    before = at.entry_types(job)
    with at.shop.door.closed():
        with pytest.raises(ProofNotChecked, match="cannot be checked now"):
            close_job(at, job, events)
        assert at.entry_types(job) == before
    close_job(at, job, events)
    assert revocation_state(at, job) is RevocationState.CONFIRMED


def test_a_carried_proof_of_active_access_is_not_believed(at: Desk) -> None:
    job = at.job()
    proof = revoke_without_store(at, job, at.issue(job))
    held = at.issue(job)
    assert close_job(at, job, proof).state is JobState.SUCCEEDED
    assert at.shop.can_log_in(held)
    assert "revocation.confirmed" not in at.entry_types(job)
    assert revocation_state(at, job) is not RevocationState.CONFIRMED


def test_the_evidence_of_a_carried_proof_is_that_of_the_new_check(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    claims = {"how": "trust me", "proof": {"trust": "me"}}
    forged = tuple(
        item.model_copy(update={"data": item.data | {name: claim for name, claim in claims.items() if name in item.data}})
        for item in revoke_without_store(at, job, held)
    )
    close_job(at, job, forged)
    entries = {entry.type: entry.data for entry in at.deps.store.ledger.entries(job=job).items}
    assert "trust" not in str(entries)
    user = held.issued.fields["username"].reveal()
    assert f"lease {held.credential.lease_id}: unknown to Vault" in entries["credential.confirmed"]["how"]
    assert "its known user does not exist" in entries["credential.confirmed"]["how"]
    assert entries["revocation.confirmed"]["proof"][f"lease {held.credential.lease_id}"] == "unknown to Vault"
    assert user not in at.shop.users_of(job)


def test_a_carried_proof_of_another_job_is_not_believed(at: Desk) -> None:
    job, other = at.job(), at.job()
    proof = revoke_without_store(at, other, at.issue(other))
    forged = tuple(item.model_copy(update={"job": job}) for item in proof)
    close_job(at, job, (*proof, *forged))
    assert at.entry_types(job).count("revocation.confirmed") == 0
    assert "revocation.confirmed" not in at.entry_types(other)
