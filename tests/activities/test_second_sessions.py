"""A job has one session: any other session is refused before it issues anything, whoever starts it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.session_activity import SessionActivities
from justenough.domain.contracts.workflow_messages import GrantedRequest, JobInput, SessionInput, SessionResult
from justenough.domain.core.ids import new_job_id, request_id
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import EventType, build_event
from tests.activities.issuing_session import start_session
from tests.activities.vault_shop import SPEC, Desk

pytestmark = pytest.mark.servers
REFUSED = "refused: this job has already run or ended; a workflow reset does not run it again"


async def run_session(at: Desk, order: JobInput) -> SessionResult:
    """Run a session of a job as its workflow would, with its first request granted."""
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=order.job)
    granted = GrantedRequest(id=request_id(order.job, 1), number=1, answers=())
    return await environment.run(SessionActivities(at.deps, cast("Any", None)).run_session, SessionInput(order=order, granted=(granted,)))


async def test_a_second_session_is_refused_although_the_first_has_recorded_nothing_yet(at: Desk) -> None:
    first = start_session(at, SPEC["access"][0])
    result = await run_session(at, first.order)
    # Only the first session knows what it holds.
    assert (result.outcome, result.reason, result.clean) == (JobState.FAILED, REFUSED, False)
    assert "job.refused" in at.entry_types(first.job)
    assert at.deps.vault.prefix_accessors(first.job) == ()
    assert first.issue().credential.user is not None


async def test_a_second_session_is_refused_by_the_ledger_alone_if_a_failover_lost_the_claim_of_the_first(at: Desk) -> None:
    job, now, launcher = new_job_id("dev", now=at.deps.now()), at.deps.now(), at.shop.newcomer("failed-over", "ops")
    began = {"worker": "w", "sandbox": "off", "run": "r", "times_out_at": now.isoformat()}
    at.deps.store.ledger.append([build_event(EventType.JOB_STARTED, job, at=now, **began)])
    result = await run_session(at, launcher.order(job, now=now, spec=SPEC))
    assert (result.outcome, result.reason) == (JobState.FAILED, REFUSED)
    assert at.deps.store.claims.get(job) is None
    assert at.deps.vault.prefix_accessors(job) == ()


@pytest.mark.parametrize(
    "how, outcome, reason", [("kill", JobState.KILLED, None), ("cancel", JobState.CANCELLED, None), (None, JobState.FAILED, REFUSED)]
)
async def test_a_job_that_was_stopped_before_its_session_began_ends_as_it_was_stopped(
    at: Desk, how: str | None, outcome: JobState, reason: str | None
) -> None:
    job, now, launcher = new_job_id("dev", now=at.deps.now()), at.deps.now(), at.shop.newcomer(f"stopper-{how}", "ops")
    if how:
        stop = build_event(EventType.STOP_REQUESTED, job, at=now, about=how, how=how, person=launcher.id, name=launcher.name)
        at.deps.store.ledger.append([stop])
    at.deps.store.claims.close(job, now)
    result = await run_session(at, launcher.order(job, now=now, spec=SPEC))
    assert (result.outcome, result.reason, result.stopped) == (outcome, reason, how is not None)
    assert at.deps.vault.prefix_accessors(job) == ()
