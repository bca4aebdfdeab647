"""Steps that Temporal cancels, because their workflow stopped or their time is over, while they run in a thread that writes for others too."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from temporalio.activity import _Definition
from temporalio.testing import ActivityEnvironment

from activities.control_group_activities import ControlGroupActivities
from activities.job_activities import JobActivities
from activities.revocation_activities import RevocationActivities
from activities.session_activity import SessionActivities
from activities.sweep_activity import SweepActivities
from justenough.domain.contracts.workflow_messages import CloseInput
from justenough.domain.jobs.states import JobState
from tests.activities.vault_shop import Desk

ACTIVITIES = (ControlGroupActivities, JobActivities, RevocationActivities, SessionActivities, SweepActivities)
IN_THREADS: list[Callable[..., Any]] = [
    method
    for methods in map(vars, ACTIVITIES)
    for method in methods.values()
    if (definition := getattr(method, "__temporal_activity_definition", None)) and not definition.is_async
]


@pytest.mark.servers
def test_a_step_that_is_cancelled_while_it_runs_still_completes(at: Desk) -> None:
    job, environment = at.job(), ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=job)

    def now() -> datetime:
        environment.cancel()
        return at.clock.now()

    closing = CloseInput(job=job, state=JobState.KILLED)
    assert environment.run(JobActivities(replace(at.deps, now=now)).close, closing).state is JobState.KILLED
    assert "job.ended" in at.entry_types(job)


@pytest.mark.parametrize("step", IN_THREADS, ids=lambda step: step.__name__)
def test_no_exception_is_raised_in_the_thread_of_a_cancelled_step(step: Callable[..., Any]) -> None:
    assert _Definition.must_from_callable(step).no_thread_cancel_exception
