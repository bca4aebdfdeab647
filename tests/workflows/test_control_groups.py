"""Locked requests wait in Vault before anybody is asked, and a job never closes without ending what waits there."""

from __future__ import annotations

import pytest

from justenough.domain.jobs.states import JobState
from tests.workflows import session_scripts
from tests.workflows.known_jobs import Need
from tests.workflows.servers import Bench

LOCKED = (Need(), Need(2, locked=True))


async def test_a_locked_request_is_opened_in_vault_before_its_approver_is_asked_and_issued_by_the_session(fresh: Bench) -> None:
    job = await fresh.start(needs=LOCKED)
    await job.wait_for_timer()
    assert job.known.ledger == ["allowed 1", "needs_approval 2", "locks opened 2"]
    await job.answer("security", number=2)
    assert (await job.result()).state is JobState.SUCCEEDED
    assert "session with 1, 2" in job.known.ledger


@pytest.mark.parametrize("ending", ["cancelled", "denied"])
async def test_a_cancel_or_a_denial_during_a_locked_request_revokes_what_was_opened(bench: Bench, ending: str) -> None:
    job = await bench.start(needs=LOCKED)
    await job.wait_for_timer()
    if ending == "cancelled":
        await job.handle.cancel()
    else:
        await job.answer("security", decision="deny", number=2)
    assert (await job.result()).state.value == ending
    assert "revoked by compensation" in job.known.ledger
    assert job.known.ledger[-1] == f"closed {ending}"


async def test_locks_that_cannot_be_opened_fail_the_job_and_its_access_is_revoked(bench: Bench) -> None:
    job = await bench.start(needs=LOCKED, unopened="Vault has no control groups")
    closed = await job.result()
    assert (closed.state, closed.reason) == (JobState.FAILED, "refused: Vault has no control groups")
    assert "revoked by compensation" in job.known.ledger


async def test_a_withdrawn_approval_ends_its_credential_but_not_the_job(server: Bench) -> None:
    job = await server.start(needs=(Need(1),), session=session_scripts.stays)
    await job.answer("lead")
    await job.wait_for_issue()
    await job.answer("lead", decision="withdraw")
    await job.known.until(lambda known: "revoked 1" in known.ledger)
    assert not job.known.closed
    await job.handle.cancel()
    assert (await job.result()).state is JobState.CANCELLED


async def test_an_approval_withdrawn_while_others_are_pending_ends_a_job_that_needs_it(bench: Bench) -> None:
    job = await bench.start(needs=(Need(1), Need(2)))
    await job.wait_for_timer()
    await job.answer("lead")
    await job.known.until(lambda known: "approve by lead" in known.ledger)
    await job.answer("lead", decision="withdraw")
    closed = await job.result()
    assert (closed.state, job.known.claim) == (JobState.DENIED, "none")
    assert closed.reason == "write on orders-db: its approval was withdrawn"
