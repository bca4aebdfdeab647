"""The guard revokes whatever the job's workflow could not, however that workflow closed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from temporalio.client import WorkflowHandle

from justenough.domain.contracts.workflow_messages import GuardInput
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState
from tests.workflows import session_scripts
from tests.workflows.known_jobs import Known, Need
from tests.workflows.servers import QUEUE, Bench, StartedJob
from workflows import options


async def start_guarded_job(server: Bench, **setup: Any) -> tuple[StartedJob, WorkflowHandle[Any, Any]]:
    """Start a job that a person approves, and return it with its guard once it holds a credential."""
    job = await server.start(needs=(Need(1),), **{"session": session_scripts.stays, **setup})
    await job.answer("lead")
    await job.wait_for_issue()
    return job, server.client.get_workflow_handle(f"{job.known.job}-guard")


async def start_guard(bench: Bench, *, deadline: int = 3600, **setup: Any) -> tuple[Known, WorkflowHandle[Any, bool]]:
    """Start a guard whose job holds a credential; the job's own workflow never says a word."""
    known = bench.fakes.know(Known(job=new_job_id("test", now=datetime.now(UTC)), claim="open", **setup))
    known.alive.add("credential")
    order = GuardInput(job=known.job, deadline=deadline)
    handle = await bench.client.start_workflow("Guard", order, id=f"{known.job}-guard", task_queue=QUEUE, result_type=bool)
    return known, handle


async def test_a_guard_records_nothing_if_its_job_closed_itself(server: Bench) -> None:
    job, guard = await start_guarded_job(server)
    await job.handle.cancel()
    assert (await job.result()).state is JobState.CANCELLED
    assert await guard.result() is False
    assert job.known.ledger[-2:] == ["proven by session", "closed cancelled"]


async def test_a_guard_revokes_and_closes_a_job_whose_workflow_is_terminated(server: Bench) -> None:
    job, guard = await start_guarded_job(server)
    await job.handle.terminate()
    assert await guard.result() is True
    assert job.known.closed is not None
    assert (job.known.closed.state, job.known.closed.reason) == (JobState.LOST, "its workflow closed without a result")
    assert "revoked by guard" in job.known.ledger
    assert not job.known.alive


async def test_a_guard_revokes_and_closes_a_job_whose_workflow_times_out(server: Bench) -> None:
    job, guard = await start_guarded_job(server, run_timeout=timedelta(seconds=6))
    assert await guard.result() is True
    assert "closed lost" in job.known.ledger
    assert not job.known.alive


async def test_a_guard_revokes_the_access_of_a_session_that_vanished(server: Bench) -> None:
    job, guard = await start_guarded_job(server, session=session_scripts.vanishes)
    await job.handle.terminate()
    assert await guard.result() is True
    assert not job.known.alive


async def test_a_job_continues_if_its_guard_is_already_running(server: Bench) -> None:
    job = await server.start(queue="standing", needs=(Need(1),))
    await server.client.start_workflow("Guard", GuardInput(job=job.known.job, deadline=60), id=f"{job.known.job}-guard", task_queue=QUEUE)
    async with server.worker(queue="standing"):
        await job.answer("lead")
        assert (await job.result()).state is JobState.SUCCEEDED
    await server.client.get_workflow_handle(f"{job.known.job}-guard").terminate()


async def test_a_guard_revokes_once_its_deadline_passes_and_closes_nothing(bench: Bench) -> None:
    known, guard = await start_guard(bench)
    assert await guard.result() is True
    assert known.ledger == ["revoked by guard"]
    assert not known.alive


async def test_a_guard_retries_a_revocation_that_fails_or_is_refused(bench: Bench) -> None:
    known, guard = await start_guard(bench, refusing={"revoke_job"})
    ending = asyncio.create_task(guard.result())
    await known.until(lambda known: known.tried["revoke_job"] > 2)
    known.refusing.clear()
    known.down.add("revoke_job")
    await known.until(lambda known: known.tried["revoke_job"] > 4)
    known.down.clear()
    assert await ending is True
    assert not known.alive


async def test_a_guard_that_is_cancelled_while_it_revokes_goes_on_and_closes_the_job(bench: Bench) -> None:
    known, guard = await start_guard(bench, deadline=1, down={"revoke_job"})
    await known.until(lambda known: known.tried["revoke_job"] > 0)
    await guard.cancel()
    await guard.cancel()
    tried = known.tried["revoke_job"]
    await known.until(lambda known: known.tried["revoke_job"] > tried)
    known.down.clear()
    assert await guard.result() is True
    assert known.ledger == ["revoked by guard", "closed lost"]


async def test_events_that_the_ledger_could_not_take_from_a_guard_are_recorded_when_it_closes_the_job(bench: Bench) -> None:
    known, guard = await start_guard(bench, unrecordable=True)
    await guard.cancel()
    assert await guard.result() is True
    assert known.carried == [f"{known.job}/revocation.started/guard"]


async def test_a_guard_retries_its_revocation_until_the_ledger_records_the_proof(bench: Bench) -> None:
    known, guard = await start_guard(bench, unrecordable=True)
    ending = asyncio.create_task(guard.result())
    await known.until(lambda known: known.ledger.count("revoked by guard") > 1)
    known.unrecordable = False
    assert await ending is True


@pytest.mark.parametrize("timeout", [1, 900, 7 * 24 * 3600])
def test_a_guards_deadline_is_later_than_the_longest_possible_end_of_its_session(timeout: int) -> None:
    session = options.session(timeout, launcher="a", queue_timeout=options.GUARDED_QUEUE_TIMEOUT)
    longest = session["schedule_to_start_timeout"] + session["start_to_close_timeout"]
    assert timedelta(seconds=options.guard_seconds(timeout)) > longest
    # To issue, to end a process that used up its time, and to revoke.
    assert session["start_to_close_timeout"] > timedelta(seconds=timeout, minutes=5)
