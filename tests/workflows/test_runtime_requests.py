"""A running job requests more access: people answer as at a start, its guard starts before they can, and no access outlives the job."""

from __future__ import annotations

from typing import Any

import pytest

from justenough.domain.approvals.ladder import ApprovalAnswer
from justenough.domain.core.ids import request_id
from justenough.domain.jobs.spec import MAX_APPROVAL_REQUESTS_PER_JOB
from justenough.domain.jobs.states import JobState
from tests.workflows import fakes, session_scripts
from tests.workflows.servers import Bench, StartedJob


async def start_job(server: Bench, **setup: Any) -> StartedJob:
    job = await server.start(session=session_scripts.stays, **setup)
    await job.wait_for_issue()
    return job


async def ask(job: StartedJob, number: int) -> None:
    await job.handle.signal("ask", job.known.request(number))
    await job.known.until(lambda known: f"opened {number}" in known.ledger)


async def cancel_job(job: StartedJob) -> None:
    await job.handle.cancel()
    assert (await job.result()).state is JobState.CANCELLED


async def test_people_decide_a_running_jobs_request_and_its_guard_is_started_before(server: Bench) -> None:
    job = await start_job(server, asked={2: 1})
    await ask(job, 2)
    history = await job.history()
    assert "child_workflow_execution_started" in history
    await job.answer("lead", number=2)
    await job.known.until(lambda known: "approve by lead" in known.ledger)
    assert await job.requests() == [("approved", 1)]
    assert (await job.view())["state"] == "running"
    await cancel_job(job)


async def test_a_pending_request_is_withdrawn_when_the_job_ends(server: Bench) -> None:
    job = await start_job(server, asked={2: 2})
    await ask(job, 2)
    await cancel_job(job)
    assert "withdrawn 2" in job.known.ledger


@pytest.mark.parametrize("tier, becomes", [(2, "climbed to 3"), (3, "expired")])
async def test_a_running_jobs_unanswered_request_escalates_and_is_denied_after_the_top_tier(server: Bench, tier: int, becomes: str) -> None:
    job = await start_job(server, asked={2: tier}, late=True)
    await ask(job, 2)
    await job.known.until(lambda known: becomes in known.ledger)
    await cancel_job(job)


async def test_answers_are_examined_whatever_people_wrote_about_the_jobs_other_requests(
    server: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer_at_length(**fields: Any) -> ApprovalAnswer:
        return ApprovalAnswer(**{**fields, "reason": "r" * 700_000})

    async def approve(number: int) -> None:
        await job.answer("lead", number=number)
        await job.known.until(lambda known: known.ledger.count("approve by lead") == number - 1)

    monkeypatch.setattr(fakes, "ApprovalAnswer", answer_at_length)
    job = await start_job(server, asked=dict.fromkeys(range(2, 6), 1))
    for number in range(2, 6):
        await ask(job, number)
    for number in range(2, 5):
        await approve(number)
    # Let the local activity fail, so that it runs as an ordinary one: only that one's arguments are a payload, of at most 2 MB.
    job.known.failing["take_answers"] = job.known.tried["take_answers"] + 3
    await approve(5)
    assert "workflow_task_failed" not in await job.history()
    await cancel_job(job)


async def test_a_withdrawn_approval_ends_what_was_issued_on_it_and_the_job_goes_on(server: Bench) -> None:
    job = await start_job(server, asked={2: 1})
    await ask(job, 2)
    await job.answer("lead", number=2)
    await job.known.until(lambda known: "approve by lead" in known.ledger)
    await job.answer("lead", decision="withdraw", number=2)
    await job.known.until(lambda known: "revoked 2" in known.ledger)
    assert not job.known.closed
    await cancel_job(job)


@pytest.mark.parametrize("ask", [None, 7, "x", {"request": 1}, "r-dev-01m89fb2ptf3bq4aqv3fd9tnmd-1", "r-test-1"])
async def test_an_ask_signal_without_a_recorded_request_of_the_job_changes_nothing(server: Bench, ask: object) -> None:
    job = await start_job(server, asked={2: 1})
    await job.handle.signal("ask", ask)
    # No session recorded this request.
    await job.handle.signal("ask", request_id(job.known.job, 3))
    await job.known.until(lambda known: known.tried["open_request"] == 1)
    assert await job.requests() == []
    await cancel_job(job)


async def test_repeated_ask_signals_open_a_request_once_and_a_job_has_a_limited_number_of_requests(server: Bench) -> None:
    last = MAX_APPROVAL_REQUESTS_PER_JOB + 1
    job = await start_job(server, asked=dict.fromkeys(range(2, last + 20), 1))
    for number in (*range(2, last + 1), *range(2, last + 19)):
        await job.handle.signal("ask", job.known.request(number))
    await job.known.until(lambda known: f"opened {last}" in known.ledger)
    await cancel_job(job)
    # Compare sets: a request whose attempt was lost with its workflow task is opened again.
    assert {entry for entry in job.known.ledger if entry.startswith("opened ")} == {f"opened {number}" for number in range(2, last + 1)}


async def test_a_request_that_cannot_be_opened_does_not_block_the_next_one(server: Bench) -> None:
    job = await start_job(server, asked={2: 1, 3: 1}, refusing={"open_request"})
    await job.handle.signal("ask", job.known.request(2))
    await job.known.until(lambda known: known.tried["open_request"] == 1)
    job.known.refusing.clear()
    await ask(job, 3)
    await cancel_job(job)


async def test_a_request_is_opened_before_its_answer_is_examined_although_earlier_answers_take_long(server: Bench) -> None:
    job = await start_job(server, asked={2: 1, 3: 1}, down={"take_answers"})
    await ask(job, 2)
    await job.answer("lead", number=2)
    # Three times within a workflow task; then the workflow receives signals.
    await job.known.until(lambda known: known.tried["take_answers"] > 3)
    await job.handle.signal("ask", job.known.request(3))
    await job.answer("lead", number=3)
    job.known.down.clear()
    await job.known.until(lambda known: known.ledger.count("approve by lead") == 2)
    assert await job.requests() == [("approved", 1), ("approved", 1)]
    await cancel_job(job)


async def test_an_escalation_that_is_refused_ends_only_its_own_request(server: Bench) -> None:
    job = await start_job(server, asked={2: 1, 3: 1}, late=True, refusing={"climb"})
    await job.handle.signal("ask", job.known.request(2))
    await job.known.until(lambda known: known.tried["climb"] == 1)
    job.known.late = False
    await ask(job, 3)
    await job.answer("lead", number=3)
    await job.answer("lead", number=2)
    await job.known.until(lambda known: {"approve by lead", "rejected"} <= set(known.ledger))
    assert await job.requests() == [("expired", 1), ("approved", 1)]
    await cancel_job(job)


async def test_an_escalation_that_cannot_be_done_does_not_keep_the_job_from_closing(server: Bench) -> None:
    job = await start_job(server, asked={2: 1}, late=True, down={"climb"})
    await job.handle.signal("ask", job.known.request(2))
    # Three times within a workflow task; then it is retried without limit.
    await job.known.until(lambda known: known.tried["climb"] > 3)
    await cancel_job(job)
    assert "withdrawn 2" in job.known.ledger
