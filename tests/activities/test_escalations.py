"""The activity that escalates a request, called as a workflow calls it: by workers whose clocks differ, and again if its result got lost."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from temporalio.testing import ActivityEnvironment

from activities.job_activities import JobActivities, NotDueYet
from justenough.domain.approvals.ladder import Ladder
from justenough.domain.contracts.workflow_messages import ClimbInput, ClimbResult
from justenough.domain.core.ids import new_job_id
from tests.activities.vault_shop import SPEC, Desk

pytestmark = pytest.mark.servers

WRITE: dict[str, Any] = {**SPEC, "access": [{"resource": "orders-db", "action": "write", "ttl": "10m", "reason": "Mend the order"}]}


class WaitingJob:
    """A job whose write waits for people."""

    def __init__(self, at: Desk) -> None:
        self.at, self.job = at, new_job_id("dev", now=at.deps.now())
        order = at.shop.sign_in("ops").order(self.job, now=at.deps.now(), spec=WRITE)
        ladder = self._call(JobActivities(at.deps).decide_requests, order).requests[0].ladder
        assert ladder is not None
        self.ladder: Ladder = ladder

    def climb(self, ladder: Ladder) -> Ladder | None:
        result: ClimbResult = self._call(JobActivities(self.at.deps).climb, ClimbInput(job=self.job, ladder=ladder))
        return result.ladder

    def let_time_pass(self, ladder: Ladder) -> None:
        self.at.clock.ahead += ladder.respond_by - self.at.deps.now()

    def _call(self, activity: Any, argument: Any) -> Any:
        environment = ActivityEnvironment()
        environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=self.job)
        return environment.run(activity, argument)


def test_a_worker_whose_clock_is_behind_leaves_an_escalation_to_others_and_to_later(at: Desk) -> None:
    job = WaitingJob(at)
    with pytest.raises(NotDueYet, match="by this worker's clock"):
        job.climb(job.ladder)
    job.let_time_pass(job.ladder)
    after = job.climb(job.ladder)
    assert after is not None
    assert after.current == job.ladder.current + 1


def test_an_escalation_whose_result_got_lost_keeps_the_recorded_deadline(at: Desk) -> None:
    job = WaitingJob(at)
    job.let_time_pass(job.ladder)
    first = job.climb(job.ladder)
    at.clock.ahead += timedelta(minutes=7)
    assert job.climb(job.ladder) == first
