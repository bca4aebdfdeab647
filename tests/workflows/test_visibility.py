"""A job shows its state to queries, and in Temporal's lists."""

from __future__ import annotations

import asyncio

from justenough.domain.jobs.states import JobState
from tests.workflows import session_scripts
from tests.workflows.known_jobs import Need
from tests.workflows.servers import ATTRIBUTES, QUEUE, Bench, StartedJob


async def visible_state(job: StartedJob) -> str | None:
    """Return the state that Temporal's lists show."""
    found: str | None = (await job.handle.describe()).typed_search_attributes.get(ATTRIBUTES[0])
    return found


async def test_a_job_shows_its_state_to_a_query_and_in_temporals_lists(server: Bench) -> None:
    job = await server.start(needs=(Need(1),), down={"decide_requests", "close"}, session=session_scripts.breaks, refusing={"revoke_job"})
    await job.wait_for_state("pending")
    job.known.down.remove("decide_requests")
    await job.wait_for_timer()
    assert await visible_state(job) == "awaiting_approval"
    await job.answer("lead")
    await job.wait_for_state("revoking")
    job.known.refusing.clear()
    assert await visible_state(job) == "running"
    await job.handle.terminate()


async def test_temporals_lists_show_how_a_job_ended(server: Bench) -> None:
    jobs = [await server.start(), await server.start(needs=(Need(None),)), await server.start(session=session_scripts.stays)]
    await jobs[2].wait_for_state("running")
    assert await visible_state(jobs[2]) == "running"
    await jobs[2].handle.signal("kill")
    ended = await asyncio.gather(*(job.result() for job in jobs))
    assert [item.state for item in ended] == [JobState.SUCCEEDED, JobState.DENIED, JobState.KILLED]
    assert [await visible_state(job) for job in jobs] == [item.state.value for item in ended]
    assert [(await job.view())["state"] for job in jobs] == [item.state.value for item in ended]


async def test_the_view_of_a_job_shows_when_its_requests_escalate(bench: Bench) -> None:
    job = await bench.start(needs=(Need(2),))
    await job.wait_for_timer()
    seen = await job.view()
    assert seen["job"] == job.known.job
    assert list(seen["requests"]) == [job.known.request()]
    assert seen["requests"][job.known.request()]["respond_by"] > (await bench.now()).isoformat()
    await job.handle.signal("kill")
    await job.result()


async def test_the_workflows_sweep_and_prove_return_their_reports(server: Bench) -> None:
    job = await server.start()
    await job.result()
    report = await server.client.execute_workflow("Prove", job.known.job, id="prove", task_queue=QUEUE)
    assert report["dead"] is True
    assert (await server.client.execute_workflow("Sweep", id="sweep", task_queue=QUEUE))["looked_at"] > 0
