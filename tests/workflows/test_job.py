"""A job runs once, with what it was granted, and closes only when none of its access can be active."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from temporalio.client import WorkflowFailureError

from justenough.domain.contracts.workflow_messages import JobResult
from justenough.domain.jobs.states import JobState
from tests.workflows import session_scripts
from tests.workflows.known_jobs import Need
from tests.workflows.servers import Bench, Lost
from workflows.options import GUARDED_QUEUE_TIMEOUT

BUDGET = 30


async def test_an_auto_approved_job_needs_one_session_and_no_guard(bench: Bench) -> None:
    job = await bench.start()
    assert await job.result() == JobResult(state=JobState.SUCCEEDED, exit_code=0)
    assert job.known.ledger == ["allowed 1", "session with 1", "issued", "proven by session", "closed succeeded"]
    assert "start_child_workflow_execution_initiated" not in await job.history()


async def test_the_history_of_an_auto_approved_job_is_short(server: Bench) -> None:
    job = await server.start()
    await job.result()
    events = await job.history()
    print(f"history of an auto-approved job: {len(events)} events (budget {BUDGET})")  # noqa: T201 - a figure that people look up
    assert len(events) <= BUDGET


async def test_a_job_that_policy_denies_never_starts_a_session(bench: Bench) -> None:
    job = await bench.start(needs=(Need(), Need(None)))
    assert await job.result() == JobResult(state=JobState.DENIED, reason="read on orders-db was denied by policy")
    assert job.known.claim == "none"


async def test_a_job_runs_without_an_optional_request_that_policy_denies(bench: Bench) -> None:
    job = await bench.start(needs=(Need(), Need(None, optional=True)))
    assert (await job.result()).state is JobState.SUCCEEDED
    assert "session with 1" in job.known.ledger


async def test_an_invalid_order_never_starts_a_session(bench: Bench) -> None:
    job = await bench.start(refused="the order has expired")
    assert await job.result() == JobResult(state=JobState.FAILED, reason="refused: the order has expired")
    assert job.known.claim == "none"


async def test_a_session_that_refuses_leaves_nothing_to_revoke(bench: Bench) -> None:
    job = await bench.start(session=session_scripts.refuses)
    assert await job.result() == JobResult(state=JobState.FAILED, reason="refused: the order has expired")
    assert job.known.tried["revoke_job"] == 0


async def test_access_that_a_session_left_is_revoked_before_the_job_closes_with_its_own_ending(bench: Bench) -> None:
    job = await bench.start(session=session_scripts.leaves_something)
    assert await job.result() == JobResult(state=JobState.SUCCEEDED, exit_code=0)
    assert job.known.ledger[-2:] == ["revoked by compensation", "closed succeeded"]
    assert not job.known.alive


async def test_a_job_runs_once_its_account_has_a_free_place(bench: Bench) -> None:
    job = await bench.start(lacks_place=True, down={"take_place"})
    await job.known.until(lambda known: known.tried["take_place"] > 3)
    # Meanwhile the job handles signals.
    await job.handle.signal("revoke_credential", f"c{job.known.job[1:]}-1")
    await job.known.until(lambda known: "revoked 1" in known.ledger)
    job.known.down.clear()
    assert await job.result() == JobResult(state=JobState.SUCCEEDED, exit_code=0)
    assert job.known.ledger == ["allowed 1", "revoked 1", "session with 1", "issued", "proven by session", "closed succeeded"]
    assert job.known.tried["run_session"] == 2


async def test_an_approved_job_gives_up_waiting_for_a_place_before_its_guard_would_revoke(fresh: Bench) -> None:
    job = await fresh.start(lacks_place=True, down={"take_place"}, needs=(Need(1),))
    await job.answer("lead")
    began = await fresh.now()
    assert await job.result() == JobResult(state=JobState.FAILED, reason="no_place")
    assert await fresh.now() - began >= GUARDED_QUEUE_TIMEOUT
    assert job.known.tried["revoke_job"] <= 1


async def test_a_session_that_raises_an_error_is_followed_by_a_revocation(bench: Bench) -> None:
    job = await bench.start(session=session_scripts.breaks)
    assert await job.result() == JobResult(state=JobState.FAILED, reason="session_failed: ZeroDivisionError")
    assert not job.known.alive
    assert job.known.tried["run_session"] == 1


async def test_a_job_that_is_refused_a_place_for_good_says_why(bench: Bench) -> None:
    job = await bench.start(lacks_place=True, refusing={"take_place"})
    assert await job.result() == JobResult(state=JobState.FAILED, reason="unexpected Refused")


@pytest.mark.parametrize("activity", ["decide_requests", "climb"])
async def test_a_step_that_is_refused_for_good_ends_the_job_and_its_access_is_revoked(bench: Bench, activity: str) -> None:
    job = await bench.start(refusing={activity}, needs=(Need(1),))
    assert await job.result() == JobResult(state=JobState.FAILED, reason="unexpected Refused")
    assert "revoked by compensation" in job.known.ledger


async def test_a_job_whose_request_the_store_lost_says_so(bench: Bench) -> None:
    job = await bench.start(refusing={"climb"}, refusal="RequestLost", needs=(Need(1),))
    result = await job.result()
    assert (result.state, "the store lost a request" in str(result.reason)) == (JobState.FAILED, True), result


async def test_a_withdrawal_that_is_refused_for_good_does_not_keep_the_job_from_closing(bench: Bench) -> None:
    job = await bench.start(refusing={"withdraw"}, needs=(Need(1), Need(1)))
    await job.answer("lead", decision="deny")
    assert (await job.result()).state is JobState.DENIED


@pytest.mark.parametrize("activity, times", [("decide_requests", 3), ("close", 3), ("revoke_job", 1)])
async def test_a_step_that_fails_for_now_is_retried_until_it_succeeds(bench: Bench, activity: str, times: int) -> None:
    job = await bench.start(down={activity}, session=session_scripts.leaves_something)
    await job.known.until(lambda known: known.tried[activity] > times)
    assert job.known.closed is None
    job.known.down.clear()
    assert (await job.result()).state is JobState.SUCCEEDED
    assert not job.known.alive


async def test_closing_is_tried_as_a_local_activity_first_and_then_as_an_ordinary_one(bench: Bench) -> None:
    job = await bench.start(down={"close"})
    await job.known.until(lambda known: known.tried["close"] > 3)
    job.known.down.clear()
    await job.result()
    events = await job.history()
    # The session, and the close that its three local attempts did not do.
    assert events.count("activity_task_scheduled") == 2
    assert events.count("marker_recorded") == 2


@pytest.mark.parametrize("activity", ["close", "revoke_job"])
async def test_a_required_step_before_a_job_closes_is_retried_even_if_it_is_refused(bench: Bench, activity: str) -> None:
    job = await bench.start(refusing={activity}, session=session_scripts.leaves_something)
    closing = asyncio.create_task(job.result())
    await job.known.until(lambda known: known.tried[activity] > 4)
    assert not closing.done()
    job.known.refusing.clear()
    assert (await closing).state is JobState.SUCCEEDED
    assert not job.known.alive


async def test_a_strangers_workflow_fails_instead_of_retrying_forever(bench: Bench) -> None:
    job = await bench.start(refusing={"decide_requests", "revoke_job", "close"}, refusal="NotTheirs")
    with pytest.raises(WorkflowFailureError):
        await job.result()
    assert job.known.closed is None


async def test_events_that_the_ledger_could_not_take_are_carried_until_the_job_closes(server: Bench) -> None:
    job = await server.start(session=session_scripts.stays, unrecordable=True)
    await job.wait_for_issue()
    # On a machine that stalls, a request may be given up after its two attempts, so send it again.
    while "revoked 1" not in job.known.ledger:
        await job.handle.signal("revoke_credential", f"c{job.known.job[1:]}-1")
        with suppress(TimeoutError):
            await asyncio.wait_for(job.known.until(lambda known: "revoked 1" in known.ledger), timeout=30)
    await job.handle.signal("kill")
    assert (await job.result()).state is JobState.KILLED
    prefix = f"{job.known.job}/revocation.started"
    assert job.known.carried == [f"{prefix}/credential", f"{prefix}/person"]


async def test_a_job_whose_worker_is_lost_is_revoked_and_fails(lost: Lost) -> None:
    job = lost["plain"]
    assert await job.result() == JobResult(state=JobState.FAILED, reason="worker_lost")
    assert job.known.ledger[-2:] == ["revoked by compensation", "closed failed"]
    assert not job.known.alive


async def test_a_job_whose_worker_is_lost_stays_open_until_its_revocation_is_confirmed(lost: Lost) -> None:
    job = lost["revocation away"]
    assert (await job.result()).reason == "worker_lost"
    # A machine that stalls may lose the answer to one of the attempts that fail.
    assert job.known.ledger[-3:] == ["failed revoke_job", "revoked by compensation", "closed failed"]
    assert not job.known.alive


async def test_answers_that_cannot_be_examined_do_not_keep_a_lost_job_from_being_revoked(lost: Lost) -> None:
    job = lost["answers away"]
    assert (await job.result()).reason == "worker_lost"
    # The answer is examined when it can be: on a slow machine before its worker is known to be lost, or after the revocation.
    assert "rejected" in job.known.ledger
    assert [entry for entry in job.known.ledger if entry not in {"rejected", "failed take_answers"}][-2:] == [
        "revoked by compensation",
        "closed failed",
    ]


async def test_a_job_that_is_killed_while_its_worker_is_lost_loses_its_access_at_once(lost: Lost) -> None:
    job = lost["killed"]
    assert (await job.result()).state is JobState.KILLED
    assert job.known.ledger[-3:] == ["revoked by person", "revoked by compensation", "closed killed"]
