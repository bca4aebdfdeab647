"""Revoking as an activity: it sends heartbeats as long as it runs, and only accepts jobs of its own installation."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import cast

import pytest
from temporalio.client import Client
from temporalio.testing import ActivityEnvironment

from activities.revocation.revoke import revoke
from activities.revocation_activities import (
    MAX_CONCURRENT_REVOCATIONS,
    MAX_RETRY_INTERVAL_S,
    RETRY_INTERVAL_S,
    ForeignJob,
    NotConfirmed,
    RevocationActivities,
)
from activities.sweep_activity import MAX_CONCURRENT_JOBS, SWEEP_POOL, SweepActivities
from justenough.adapters.targets.inspector import RequestedActions, TargetInspector
from justenough.adapters.targets.postgres import TargetInspection
from justenough.adapters.vault import Vault, VaultUnavailable
from justenough.domain.contracts.workflow_messages import RevokeCredentialInput, RevokeInput
from justenough.domain.core.secret import Secret
from justenough.domain.ledger.events import EventType, build_event
from justenough.services import revocation_attempts
from justenough.services.dependencies import Deps
from tests.activities.revocation_calls import revocation_state, revoke_by_session
from tests.activities.vault_shop import Desk
from tests.support.wait import until

pytestmark = pytest.mark.servers


def revocations(deps: Deps, *, reaches_vault: bool = True) -> RevocationActivities:
    """Return the revocation activities of a worker that did or did not reach Vault in its latest check."""
    return RevocationActivities(deps, reaches_vault=lambda: reaches_vault)


class SlowInspector(TargetInspector):
    """Targets that are looked at only once a test says so."""

    def __init__(self, at: Desk, go: threading.Event) -> None:
        super().__init__(at.deps.vault, lambda: at.deps.config.current().catalog, installation=at.deps.settings.installation)
        self._go = go

    def inspect(self, job: str, actions: RequestedActions | None = None, *, names: Collection[str] = ()) -> TargetInspection:
        assert self._go.wait(180), "no heartbeat came while it hung"
        return super().inspect(job, actions, names=names)


@pytest.mark.parametrize("whole", [True, False], ids=["of a job", "of one credential"])
async def test_a_revocation_heartbeats_even_while_one_of_its_steps_hangs(at: Desk, *, whole: bool) -> None:
    job = at.job()
    held = at.issue(job)
    environment, beats, go = ActivityEnvironment(), list[object](), threading.Event()

    def beat(*details: object) -> None:
        beats.append(details)
        if len(beats) == 2:
            go.set()

    environment.on_heartbeat = beat
    targets = SlowInspector(at, go)
    ending = revocations(replace(at.deps, targets=targets))
    if whole:
        await environment.run(ending.revoke_job, RevokeInput(job=job, by="compensation", why="its worker died", attempts=1))
    else:
        await environment.run(ending.revoke_credential, RevokeCredentialInput(job=job, credential=held.credential.id))
    assert at.shop.users_of(job) == []
    targets.close()


@pytest.mark.parametrize("release", ["this one", "earlier ones"])
async def test_the_credential_of_one_request_is_revoked_under_the_names_that_any_release_uses(
    at: Desk, monkeypatch: pytest.MonkeyPatch, *, release: str
) -> None:
    job = at.job()
    held = at.issue(job)
    request = held.credential.request_id
    revoke_input = RevokeCredentialInput(job=job, credential=request, request=request if release == "this one" else None)
    result = await ActivityEnvironment().run(revocations(at.deps).revoke_credential, revoke_input)
    assert result.confirmed
    assert at.shop.users_of(job) == []
    # Vault is not asked again to revoke what is already revoked.
    leases: list[str] = []
    monkeypatch.setattr(at.deps.vault, "revoke_lease", leases.append)
    assert (await ActivityEnvironment().run(revocations(at.deps).revoke_credential, revoke_input)).confirmed
    assert leases == []


async def test_a_job_of_another_installation_is_not_revoked(at: Desk) -> None:
    wanted = RevokeInput(job="j-other-01m8722504qjpy8t9ny5kcdg6s", by="compensation", why="because", attempts=1)
    with pytest.raises(ForeignJob, match="not a job of this installation"):
        await ActivityEnvironment().run(revocations(at.deps).revoke_job, wanted)


async def test_a_worker_that_knows_that_it_does_not_reach_vault_leaves_revocations_to_others(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    ending, entries = revocations(at.deps, reaches_vault=False), at.entry_types(job)
    with pytest.raises(VaultUnavailable, match="this worker does not reach Vault"):
        await ActivityEnvironment().run(ending.revoke_job, RevokeInput(job=job, by="person", why="killed", attempts=1))
    with pytest.raises(VaultUnavailable, match="this worker does not reach Vault"):
        await ActivityEnvironment().run(ending.revoke_credential, RevokeCredentialInput(job=job, credential=held.credential.id))
    assert at.entry_types(job) == entries
    assert at.shop.can_log_in(held)


async def test_a_worker_that_does_not_reach_vault_closes_the_claim_of_a_job_that_it_leaves_to_others(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, claims = at.job(), at.deps.store.claims
    ending = revocations(at.deps, reaches_vault=False)
    how = RevokeInput(job=job, by="person", why="killed", attempts=1)
    with monkeypatch.context() as patched:
        patched.setattr(claims, "close", lambda *_: 1 / 0)
        with pytest.raises(VaultUnavailable):
            await ActivityEnvironment().run(ending.revoke_job, how)
    with pytest.raises(VaultUnavailable):
        await ActivityEnvironment().run(ending.revoke_job, how)
    claim = claims.get(job)
    assert claim is not None
    assert not claim.open
    assert claim.attempted_at is None, "no worker has begun to revoke"


SLACK_S = 60
"""Seconds that a busy machine may take for the rest."""


async def test_a_revocation_whose_workflow_is_gone_keeps_its_pauses_between_attempts(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    environment, tries, began = ActivityEnvironment(), 3, time.monotonic()
    environment.on_heartbeat = lambda *_: environment.cancel()
    with at.shop.door.closed():
        wanted = RevokeInput(job=job, by="compensation", why="its worker died", attempts=tries)
        assert not (await environment.run(revocations(at.deps).revoke_job, wanted)).confirmed
        assert (tries - 1) * RETRY_INTERVAL_S <= time.monotonic() - began < MAX_RETRY_INTERVAL_S + SLACK_S


async def test_a_revocation_whose_workflow_is_gone_records_nothing_after_anothers_proof(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    assert revoke(at.deps, job, by="compensation", settled=True, why="a reset took the job over").confirmed
    environment, before = ActivityEnvironment(), at.entry_types(job)
    environment.on_heartbeat = lambda *_: environment.cancel()
    ended = await environment.run(revocations(at.deps).revoke_job, RevokeInput(job=job, by="compensation", why="its worker died"))
    assert ended.confirmed
    assert at.entry_types(job) == before


async def test_a_proof_stays_valid_if_vault_is_away_when_the_guard_checks(at: Desk) -> None:
    job = at.job()
    assert revoke_by_session(at, job, at.issue(job)).confirmed
    before, wanted = at.entry_types(job), RevokeInput(job=job, by="guard", why="its workflow closed")
    away = replace(at.deps, vault=Vault("http://127.0.0.1:1"))
    away.vault.login_token(Secret("s.anything"))
    with pytest.raises(VaultUnavailable):
        await ActivityEnvironment().run(revocations(away).revoke_job, wanted)
    assert revocation_state(at, job) == "confirmed"
    assert (await ActivityEnvironment().run(revocations(at.deps).revoke_job, wanted)).confirmed
    assert at.entry_types(job) == before


async def test_a_kill_closes_a_jobs_claim_even_if_its_ledger_already_has_a_forged_proof(at: Desk) -> None:
    job, now = at.job(), at.deps.now()
    at.deps.store.ledger.append([build_event(EventType.REVOCATION_CONFIRMED, job, at=now, about="forged", by="session", proof={})])
    await ActivityEnvironment().run(revocations(at.deps).revoke_job, RevokeInput(job=job, by="person", why="killed", attempts=1))
    claim = at.deps.store.claims.get(job)
    assert claim is not None
    assert not claim.open


async def test_a_kill_that_arrives_as_the_job_ends_by_itself_leaves_its_proof_unchanged(at: Desk) -> None:
    job = at.job()
    held = at.issue(job)
    assert revoke_by_session(at, job, held).confirmed
    await ActivityEnvironment().run(revocations(at.deps).revoke_job, RevokeInput(job=job, by="person", why="killed", attempts=1))
    assert revocation_state(at, job) == "confirmed"


async def test_a_worker_that_stops_leaves_its_revocations_to_another_at_once(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # No second look is due before the test is over.
    monkeypatch.setattr(revocation_attempts, "SECOND_CHECK_DELAY", timedelta(minutes=30))
    jobs = [at.job() for _ in range(MAX_CONCURRENT_REVOCATIONS + 4)]
    for job in jobs:
        at.issue(job)
    environment, ending = ActivityEnvironment(), revocations(at.deps)
    wanted = [RevokeInput(job=job, by="compensation", why="its worker died") for job in jobs]
    revoking = [asyncio.create_task(environment.run(ending.revoke_job, one)) for one in wanted]
    # Jobs that wait for their second check delay no other: all have had their first check before any is done.
    await asyncio.to_thread(until, lambda: not any(map(at.shop.users_of, jobs)), "all access ended")
    assert not any(one.done() for one in revoking)
    environment.worker_shutdown()
    for result in await asyncio.wait_for(asyncio.gather(*revoking, return_exceptions=True), 180):
        assert isinstance(result, NotConfirmed)
        assert "second check" in str(result)


async def test_a_worker_that_cannot_reach_vault_leaves_a_revocation_to_one_that_can(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.revocation_activities.HANDOVER_S", 0.1)
    job = at.job()
    at.issue(job)
    away = replace(at.deps, vault=Vault("http://127.0.0.1:1"), revocation_tracker=revocation_attempts.RevocationTracker())
    away.vault.login_token(Secret("s.anything"))
    wanted = RevokeInput(job=job, by="compensation", why="killed")
    with pytest.raises(NotConfirmed, match="did not answer"):
        await asyncio.wait_for(ActivityEnvironment().run(revocations(away).revoke_job, wanted), 60)
    result = await ActivityEnvironment().run(revocations(at.deps).revoke_job, wanted.model_copy(update={"attempts": 1}))
    assert not result.failures


async def test_a_revocation_that_fails_once_at_each_of_two_workers_is_overdue(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("activities.revocation_activities.HANDOVER_S", 0.1)
    job, environment = at.job(), ActivityEnvironment()
    at.issue(job)
    wanted = RevokeInput(job=job, by="compensation", why="its worker died")
    with at.shop.door.closed():
        for attempt in (1, 2):
            worker = replace(at.deps, revocation_tracker=revocation_attempts.RevocationTracker())
            environment.info = replace(environment.info, attempt=attempt)
            assert revocation_state(at, job) != "overdue"
            with pytest.raises(NotConfirmed):
                await asyncio.wait_for(environment.run(revocations(worker).revoke_job, wanted), 60)
    assert revocation_state(at, job) == "overdue"


def test_what_a_worker_saw_before_another_proved_the_job_hides_no_later_failure(at: Desk) -> None:
    job = at.job()
    at.issue(job)
    first, other = (replace(at.deps, revocation_tracker=revocation_attempts.RevocationTracker()) for _ in range(2))
    with at.shop.door.closed():
        for _ in range(4):
            assert not revoke(first, job, by="compensation", settled=False, why="killed").confirmed
    assert revoke(other, job, by="compensation", settled=True, why="killed").confirmed
    with at.shop.door.closed():
        for state in ("pending", "overdue", "overdue"):
            assert not revoke(first, job, by="sweep", settled=False, why="more was found").confirmed
            assert revocation_state(at, job) == state
    assert revoke(first, job, by="sweep", settled=True, why="more was found").confirmed
    assert revocation_state(at, job) == "confirmed"


async def test_a_sweep_that_waited_for_others_leaves_a_job_that_has_been_proven_since_unchanged(at: Desk) -> None:
    job, held_up = at.job(), threading.Event()
    held = at.issue(job)
    at.deps.store.ledger.append([build_event(EventType.JOB_ENDED, job, at=at.deps.now(), state="succeeded", exit_code=0, reason=None)])
    stuck = [SWEEP_POOL.submit(held_up.wait, 600) for _ in range(MAX_CONCURRENT_JOBS)]
    sweep = asyncio.create_task(ActivityEnvironment().run(SweepActivities(at.deps, cast("Client", None)).sweep))
    while not SWEEP_POOL._work_queue.qsize():  # noqa: ASYNC110 - nothing else tells that the sweep has judged
        await asyncio.sleep(0.01)
    assert revoke_by_session(at, job, held).confirmed
    before = at.entry_types(job)
    held_up.set()
    assert job in (await sweep).revoked
    assert at.entry_types(job) == before
    assert revocation_state(at, job) == "confirmed"
    assert all(one.result(180) for one in stuck)


async def test_a_sweep_heartbeats_so_that_one_of_a_dead_worker_does_not_block_the_next(at: Desk) -> None:
    environment, beats = ActivityEnvironment(), list[object]()
    environment.on_heartbeat = lambda *details: beats.append(details)
    # Temporal is asked about known jobs only, and this store knows none.
    await environment.run(SweepActivities(at.deps, cast("Client", None)).sweep)
    assert beats
