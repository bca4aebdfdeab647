"""A kill or a cancel works in every state, whatever else is unavailable, and never skips a revocation."""

from __future__ import annotations

import pytest

from justenough.domain.contracts.workflow_messages import JobResult
from justenough.domain.jobs.states import JobState
from tests.workflows import session_scripts
from tests.workflows.known_jobs import Need
from tests.workflows.servers import Bench, StartedJob

STOPS = pytest.mark.parametrize("stop", [JobState.KILLED, JobState.CANCELLED])


async def stop_job(job: StartedJob, end_state: JobState) -> None:
    """Ask a job to stop."""
    await (job.handle.signal("kill") if end_state is JobState.KILLED else job.handle.cancel())


@STOPS
async def test_a_job_can_be_stopped_before_a_worker_has_seen_it(bench: Bench, stop: JobState) -> None:
    job = await bench.start(queue=f"early-{stop}")
    await stop_job(job, stop)
    async with bench.worker(queue=f"early-{stop}"):
        assert (await job.result()).state is stop
    assert job.known.claim == "none"
    assert job.known.closed == JobResult(state=stop)


# These run on the real server: the time-skipping one has hung when a stop coincided with a retry.


@STOPS
async def test_a_job_can_be_stopped_while_it_waits_for_a_place(server: Bench, stop: JobState) -> None:
    queue = f"placeless-{stop.value}"
    async with server.worker(queue=queue):
        job = await server.start(queue=queue, lacks_place=True, down={"take_place"})
        await job.known.until(lambda known: known.tried["take_place"] > 2)
        await stop_job(job, stop)
        assert await job.result() == JobResult(state=stop)
    assert job.known.ledger == ["allowed 1", f"closed {stop.value}"]


@STOPS
async def test_a_job_can_be_stopped_while_it_cannot_be_decided(server: Bench, stop: JobState) -> None:
    queue = f"undecided-{stop.value}"
    async with server.worker(queue=queue):
        job = await server.start(queue=queue, down={"decide_requests"})
        await job.known.until(lambda known: known.tried["decide_requests"] > 2)
        await stop_job(job, stop)
        assert (await job.result()).state is stop
    assert job.known.ledger == [f"closed {stop.value}"]


@STOPS
async def test_a_job_can_be_stopped_while_it_waits_and_withdraws_its_requests(bench: Bench, stop: JobState) -> None:
    job = await bench.start(needs=(Need(1), Need(2)))
    await job.wait_for_timer()
    await stop_job(job, stop)
    assert (await job.result()).state is stop
    assert job.known.ledger[2:] == ["withdrawn 1", "withdrawn 2", f"closed {stop.value}"]


@STOPS
async def test_a_job_can_be_stopped_while_answers_cannot_be_examined(server: Bench, stop: JobState) -> None:
    queue = f"unexamined-{stop.value}"
    async with server.worker(queue=queue):
        job = await server.start(queue=queue, needs=(Need(1),), down={"take_answers"})
        await job.wait_for_timer()
        await job.answer("lead")
        await job.known.until(lambda known: known.tried["take_answers"] > 3)
        await stop_job(job, stop)
        await job.known.until(lambda known: "withdrawn 1" in known.ledger)
        job.known.down.clear()
        assert (await job.result()).state is stop
    # An answer that came too late is recorded, and changes nothing.
    assert job.known.ledger[1:] == ["withdrawn 1", "rejected", f"closed {stop.value}"]


@STOPS
async def test_a_job_can_be_stopped_while_it_cannot_escalate(fresh: Bench, stop: JobState) -> None:
    job = await fresh.start(needs=(Need(1),), down={"climb"})
    await job.wait_for_timer()
    await fresh.env.sleep(16 * 60)
    await job.known.until(lambda known: known.tried["climb"] > 3)
    await stop_job(job, stop)
    assert (await job.result()).state is stop


@STOPS
async def test_a_job_can_be_stopped_while_its_session_waits_for_a_worker_that_has_room(server: Bench, stop: JobState) -> None:
    queue = f"full-{stop.value}"
    async with server.worker(queue=queue, max_concurrent_activities=1):
        first = await server.start(queue=queue, session=session_scripts.stays)
        await first.wait_for_issue()
        second = await server.start(queue=queue)
        while "activity_task_scheduled" not in await second.history():
            pass
        await stop_job(second, stop)
        assert (await second.result()).state is stop
        assert "issued" not in second.known.ledger
        await stop_job(first, stop)
        assert (await first.result()).state is stop


async def test_a_kill_cuts_access_before_the_process_ends(server: Bench) -> None:
    job = await server.start(session=session_scripts.stays)
    await job.wait_for_issue()
    await job.handle.signal("kill")
    assert await job.result() == JobResult(state=JobState.KILLED, exit_code=143)
    assert job.known.ledger[3:] == ["revoked by person", "proven by session", "closed killed"]


async def test_a_kill_whose_first_revocation_fails_still_ends_the_session_with_a_proof(server: Bench) -> None:
    job = await server.start(session=session_scripts.stays, refusing={"revoke_job"})
    await job.wait_for_issue()
    await job.handle.signal("kill")
    assert (await job.result()).state is JobState.KILLED
    assert job.known.ledger[3:] == ["proven by session", "closed killed"]


async def test_a_cancel_lets_the_session_end_in_its_own_order(server: Bench) -> None:
    job = await server.start(session=session_scripts.stays)
    await job.wait_for_issue()
    await job.handle.cancel()
    assert await job.result() == JobResult(state=JobState.CANCELLED, exit_code=143)
    assert job.known.ledger[3:] == ["proven by session", "closed cancelled"]


async def test_a_job_that_takes_too_long_over_a_cancel_can_be_killed(server: Bench) -> None:
    job = await server.start(session=session_scripts.lingers)
    await job.wait_for_issue()
    await job.handle.cancel()
    await job.known.until(lambda known: "asked to end" in known.ledger)
    await job.handle.signal("kill")
    assert (await job.result()).state is JobState.KILLED
    assert job.known.ledger[3:] == ["asked to end", "revoked by person", "proven by session", "closed killed"]


async def test_a_cancel_after_a_kill_changes_nothing(server: Bench) -> None:
    job = await server.start(session=session_scripts.stays, down={"revoke_job"})
    await job.wait_for_issue()
    await job.handle.signal("kill")
    await job.known.until(lambda known: known.tried["revoke_job"] > 0)
    await job.handle.cancel()
    job.known.down.clear()
    assert (await job.result()).state is JobState.KILLED
    assert not job.known.alive


async def test_repeated_cancels_ask_the_session_to_end_only_once(server: Bench) -> None:
    job = await server.start(session=session_scripts.lingers)
    await job.wait_for_issue()
    await job.handle.cancel()
    await job.handle.cancel()
    await job.known.until(lambda known: "asked to end" in known.ledger)
    await job.handle.cancel()
    await job.handle.signal("kill")
    assert (await job.result()).state is JobState.KILLED
    assert job.known.ledger.count("asked to end") == 1


@STOPS
async def test_nothing_interrupts_a_revocation_after_a_failed_session(bench: Bench, stop: JobState) -> None:
    job = await bench.start(session=session_scripts.breaks, down={"revoke_job"})
    await job.known.until(lambda known: known.tried["revoke_job"] > 0)
    await stop_job(job, stop)
    await job.known.until(lambda known: known.tried["revoke_job"] > 1)
    assert job.known.alive
    assert job.known.closed is None
    job.known.down.clear()
    # How it ended was settled before anybody asked it to stop.
    assert await job.result() == JobResult(state=JobState.FAILED, reason="session_failed: ZeroDivisionError")
    assert job.known.ledger[-2:] == ["revoked by compensation", "closed failed"]


@STOPS
async def test_a_job_that_ended_by_itself_keeps_its_ending_if_it_is_stopped_late(bench: Bench, stop: JobState) -> None:
    job = await bench.start(down={"close"})
    await job.known.until(lambda known: known.tried["close"] > 0)
    await stop_job(job, stop)
    job.known.down.clear()
    assert await job.result() == JobResult(state=JobState.SUCCEEDED, exit_code=0)


@STOPS
async def test_answers_that_cannot_be_examined_do_not_keep_a_running_job_from_being_stopped(server: Bench, stop: JobState) -> None:
    job = await server.start(session=session_scripts.stays, down={"take_answers"})
    await job.wait_for_issue()
    await job.answer("lead")
    await job.known.until(lambda known: known.tried["take_answers"] > 0)
    await stop_job(job, stop)
    await job.known.until(lambda known: "proven by session" in known.ledger)
    job.known.down.clear()
    assert (await job.result()).state is stop
    assert job.known.ledger[-2:] == ["rejected", f"closed {stop.value}"]


async def test_a_credential_that_cannot_be_revoked_does_not_keep_a_job_from_being_stopped(server: Bench) -> None:
    job = await server.start(session=session_scripts.stays, down={"revoke_credential"})
    await job.wait_for_issue()
    await job.handle.signal("revoke_credential", f"c{job.known.job[1:]}-1")
    await job.known.until(lambda known: known.tried["revoke_credential"] > 0)
    await job.handle.signal("kill")
    assert (await job.result()).state is JobState.KILLED
    assert not job.known.alive


async def test_a_single_credential_can_be_ended_while_the_job_goes_on(server: Bench) -> None:
    job = await server.start(session=session_scripts.stays)
    await job.wait_for_issue()
    await job.handle.signal("revoke_credential", f"c{job.known.job[1:]}-1")
    await job.known.until(lambda known: not known.alive)
    assert (await job.view())["state"] == "running"
    await job.handle.cancel()
    await job.result()
