"""Requests wait for people, escalate if nobody answers, and are never approved by silence."""

from __future__ import annotations

from datetime import timedelta

import pytest

from justenough.domain.approvals.tiers import Tiers
from justenough.domain.contracts.workflow_messages import JobResult
from justenough.domain.jobs.states import JobState
from tests.workflows.known_jobs import Need
from tests.workflows.servers import Bench

SILENCE = "write on orders-db was denied by a timeout: no tier decided in time"
WHOLE_LADDER = timedelta(minutes=15) + timedelta(hours=1) + timedelta(hours=4)
"""The tiers' times in a row."""


async def test_the_guard_of_an_approved_job_starts_before_its_session(server: Bench) -> None:
    job = await server.start(needs=(Need(1),))
    await job.answer("lead")
    assert (await job.result()).state is JobState.SUCCEEDED
    events = await job.history()
    assert events.index("child_workflow_execution_started") < events.index("activity_task_scheduled")


async def test_an_unanswered_request_escalates_through_every_tier_and_is_then_denied(bench: Bench) -> None:
    job = await bench.start(needs=(Need(1),))
    assert await job.result() == JobResult(state=JobState.DENIED, reason=SILENCE)
    assert job.known.ledger == ["needs_approval 1", "climbed to 2", "climbed to 3", "expired", "closed denied"]
    assert WHOLE_LADDER <= await job.duration() < WHOLE_LADDER + timedelta(minutes=1)


async def test_a_temporal_whose_clock_is_a_month_ahead_asks_once_for_each_tier_whether_its_time_is_over(bench: Bench) -> None:
    job = await bench.start(needs=(Need(2),), ahead=timedelta(days=30))
    await job.result()
    assert job.known.ledger == ["needs_approval 1", "not due", "climbed to 3", "not due", "expired", "closed denied"]


async def test_a_request_opens_at_the_tier_it_needs(bench: Bench) -> None:
    job = await bench.start(needs=(Need(3),))
    await job.result()
    assert job.known.ledger == ["needs_approval 1", "expired", "closed denied"]


async def test_after_an_escalation_only_the_next_tier_can_decide_and_not_the_lower_one(fresh: Bench) -> None:
    job = await fresh.start(needs=(Need(1),))
    await job.wait_for_timer()
    await fresh.env.sleep(timedelta(minutes=16))
    await job.known.until(lambda known: "climbed to 2" in known.ledger)
    await job.answer("lead", "security")
    assert (await job.result()).state is JobState.SUCCEEDED
    assert job.known.ledger[1:5] == ["climbed to 2", "rejected", "approve by security", "session with 1"]


async def test_an_escalation_to_a_tier_for_which_the_approvals_so_far_are_enough_lets_the_job_run(fresh: Bench) -> None:
    pair, one = (fresh.fakes.tiers.tiers[number].model_copy(update={"quorum": quorum}) for number, quorum in ((1, 2), (2, 1)))
    fresh.fakes.tiers = Tiers(tiers={1: pair, 2: one})
    job = await fresh.start(needs=(Need(1),))
    await job.answer("security")
    assert (await job.result()).state is JobState.SUCCEEDED
    assert job.known.ledger[1:4] == ["approve by security", "climbed to 2", "session with 1"]


async def test_an_approver_of_a_higher_tier_may_decide_early(server: Bench) -> None:
    job = await server.start(needs=(Need(1),))
    await job.answer("chief")
    assert (await job.result()).state is JobState.SUCCEEDED


async def test_a_quorum_needs_distinct_people(server: Bench) -> None:
    job = await server.start(needs=(Need(3),))
    await job.answer("chief", "chief", "chief2")
    assert (await job.result()).state is JobState.SUCCEEDED
    assert job.known.ledger[1:4] == ["approve by chief", "rejected", "approve by chief2"]


async def test_one_denial_ends_the_job_and_withdraws_its_other_requests(bench: Bench) -> None:
    job = await bench.start(needs=(Need(1), Need(2)))
    await job.answer("lead", decision="deny")
    assert await job.result() == JobResult(state=JobState.DENIED, reason="write on orders-db was denied by an approver")
    assert job.known.ledger == ["needs_approval 1", "needs_approval 2", "deny by lead", "withdrawn 2", "closed denied"]


async def test_an_approval_does_not_outweigh_another_requests_denial(bench: Bench) -> None:
    job = await bench.start(needs=(Need(1), Need(2)))
    await job.answer("lead")
    await job.answer("security", decision="deny", number=2)
    assert (await job.result()).state is JobState.DENIED
    assert job.known.claim == "none"


async def test_a_job_runs_without_an_optional_request_that_was_denied(bench: Bench) -> None:
    job = await bench.start(needs=(Need(), Need(2, optional=True)))
    await job.answer("security", decision="deny", number=2)
    assert (await job.result()).state is JobState.SUCCEEDED
    assert "session with 1" in job.known.ledger


async def test_a_job_runs_without_an_optional_request_that_nobody_answered(fresh: Bench) -> None:
    job = await fresh.start(needs=(Need(1), Need(3, optional=True)))
    await job.answer("lead")
    assert (await job.result()).state is JobState.SUCCEEDED
    assert job.known.ledger[3:5] == ["expired", "session with 1"]


async def test_a_job_whose_requests_are_all_optional_and_denied_runs_without_a_guard(bench: Bench) -> None:
    job = await bench.start(needs=(Need(1, optional=True),))
    await job.answer("lead", decision="deny")
    assert (await job.result()).state is JobState.SUCCEEDED
    assert "start_child_workflow_execution_initiated" not in await job.history()


@pytest.mark.parametrize("activity", ["take_answers", "climb"])
async def test_a_job_keeps_waiting_while_answers_or_escalations_cannot_be_processed(fresh: Bench, activity: str) -> None:
    job = await fresh.start(down={activity}, needs=(Need(1),))
    await job.wait_for_timer()
    await fresh.env.sleep(timedelta(minutes=16)) if activity == "climb" else await job.answer("lead")
    await job.known.until(lambda known: known.tried[activity] > 3)
    job.known.down.clear()
    await job.answer("security")
    assert (await job.result()).state is JobState.SUCCEEDED


async def test_an_answer_in_time_counts_although_another_request_could_not_be_escalated_until_later(fresh: Bench) -> None:
    job = await fresh.start(down={"climb"}, needs=(Need(1), Need(2)))
    await job.wait_for_timer()
    await fresh.env.sleep(timedelta(minutes=16))
    await job.known.until(lambda known: known.tried["climb"] > 3)
    # The second tier has an hour for its own.
    await job.answer("security", number=2)
    await fresh.env.sleep(timedelta(minutes=50))
    job.known.down.clear()
    await job.known.until(lambda known: known.signals == [1])
    await job.answer("security")
    assert (await job.result()).state is JobState.SUCCEEDED
    assert job.known.ledger[2:5] == ["climbed to 2", "approve by security", "approve by security"]


async def test_the_view_of_a_job_shows_each_requests_state_and_tier(bench: Bench) -> None:
    job = await bench.start(needs=(Need(1), Need(2)))
    await job.wait_for_timer()
    await job.answer("lead")
    while (states := await job.requests()) == [("pending", 1), ("pending", 2)]:
        pass
    assert states == [("approved", 1), ("pending", 2)]
    await job.handle.signal("kill")
    await job.result()
    assert await job.requests() == [("approved", 1), ("withdrawn", 2)]
