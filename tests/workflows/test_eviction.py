"""A job that was evicted from its worker's cache is replayed from its history in every state, with the same end and without a warning."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from justenough.domain.jobs.states import JobState
from tests.workflows import session_scripts
from tests.workflows.known_jobs import Need
from tests.workflows.servers import Bench, StartedJob

EXPECTED = "Completing activity as failed"
"""What the SDK says of an activity that the fakes let fail."""


@pytest.fixture(scope="module")
async def queue(server: Bench) -> AsyncIterator[str]:
    """A worker that remembers no workflow between two tasks."""
    async with server.worker(queue="forgetful", max_cached_workflows=0):
        yield "forgetful"


@contextmanager
def expect_silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail where anything was worth a warning."""
    with caplog.at_level(logging.WARNING):
        yield
    assert not [record.getMessage() for record in caplog.records if EXPECTED not in record.getMessage()]


async def evict_others(server: Bench, queue: str) -> None:
    """Push every other job out of the worker's memory; one at a time, for the SDK evicts even those that are amid a local activity."""
    assert (await (await server.start(queue=queue)).result()).state is JobState.SUCCEEDED


async def test_a_waiting_job_is_replayed(server: Bench, queue: str, caplog: pytest.LogCaptureFixture) -> None:
    with expect_silence(caplog):
        job = await server.start(queue=queue, needs=(Need(1), Need(1), Need(2, optional=True)))
        await job.wait_for_timer()
        await evict_others(server, queue)
        await job.answer("lead")
        await job.answer("security", decision="deny", number=3)
        await job.known.until(lambda known: "deny by security" in known.ledger)
        await evict_others(server, queue)
        assert await job.requests() == [("approved", 1), ("pending", 1), ("denied", 2)]
        await job.answer("lead", number=2)
        assert (await job.result()).state is JobState.SUCCEEDED
    assert "session with 1, 2" in job.known.ledger
    assert await server.client.get_workflow_handle(f"{job.known.job}-guard").result() is False


STATES: dict[str, tuple[dict[str, Any], Callable[[StartedJob], Awaitable[None]]]] = {
    "deciding": ({"down": {"decide_requests"}}, lambda job: job.known.until(lambda known: known.tried["decide_requests"] > 3)),
    "waiting": ({"needs": (Need(1), Need(2))}, StartedJob.wait_for_timer),
    "running": ({"session": session_scripts.stays}, StartedJob.wait_for_issue),
}


@pytest.mark.parametrize("stop", [JobState.KILLED, JobState.CANCELLED])
@pytest.mark.parametrize("state", STATES)
async def test_a_job_that_is_stopped_in_any_state_is_replayed(
    server: Bench, queue: str, caplog: pytest.LogCaptureFixture, state: str, stop: JobState
) -> None:
    setup, reached = STATES[state]
    with expect_silence(caplog):
        job = await server.start(queue=queue, **setup)
        await reached(job)
        await evict_others(server, queue)
        await (job.handle.signal("kill") if stop is JobState.KILLED else job.handle.cancel())
        assert (await job.result()).state is stop


async def test_a_job_in_revocation_is_replayed_and_a_late_cancel_changes_nothing(
    server: Bench, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    with expect_silence(caplog):
        job = await server.start(queue=queue, session=session_scripts.leaves_something, down={"revoke_job", "close"})
        await job.known.until(lambda known: known.tried["revoke_job"] > 0)
        await evict_others(server, queue)
        await job.handle.cancel()
        await evict_others(server, queue)
        await job.wait_for_state("revoking")
        job.known.down.remove("revoke_job")
        await job.known.until(lambda known: known.tried["close"] > 3)
        await evict_others(server, queue)
        job.known.down.clear()
        assert (await job.result()).state is JobState.SUCCEEDED
    assert not job.known.alive


async def test_a_guard_is_replayed_while_it_waits_and_while_it_revokes(server: Bench, queue: str, caplog: pytest.LogCaptureFixture) -> None:
    with expect_silence(caplog):
        job = await server.start(queue=queue, needs=(Need(1),), session=session_scripts.stays)
        await job.answer("lead")
        await job.wait_for_issue()
        job.known.down.add("revoke_job")
        await evict_others(server, queue)
        await job.handle.terminate()
        await job.known.until(lambda known: known.tried["revoke_job"] > 0)
        await evict_others(server, queue)
        job.known.down.clear()
        assert await server.client.get_workflow_handle(f"{job.known.job}-guard").result() is True
    assert not job.known.alive


async def test_a_worker_that_caches_one_workflow_serves_many_jobs_in_turn(server: Bench, caplog: pytest.LogCaptureFixture) -> None:
    name = "remembers-one"
    with expect_silence(caplog):
        async with server.worker(queue=name, max_cached_workflows=1):
            jobs = []
            for _ in range(3):
                jobs.append(await server.start(queue=name, needs=(Need(1),)))
                await jobs[-1].wait_for_timer()
            for job in jobs:
                await job.answer("lead", decision="deny")
                assert (await job.result()).state is JobState.DENIED
