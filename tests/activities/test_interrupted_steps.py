"""Steps that Temporal cancels while they run in a thread, and steps that it calls again because the first attempt's result got lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from temporalio.activity import _Definition
from temporalio.testing import ActivityEnvironment

from activities.job_activities import JobActivities
from activities.revocation_activities import RevocationActivities
from activities.session_activity import SessionActivities
from activities.sweep_activity import SweepActivities
from justenough.domain.contracts.workflow_messages import CloseInput, StartDecisions
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState
from tests.activities.vault_shop import SPEC, Desk, Shop, copy_config, open_desk

ACTIVITIES = (JobActivities, RevocationActivities, SessionActivities, SweepActivities)
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


@pytest.mark.servers
def test_a_job_is_refused_if_policy_changed_before_its_requests_were_decided_again(shop: Shop, tmp_path: Path) -> None:
    folder = copy_config(tmp_path)
    with open_desk(shop, tmp_path, folder=folder) as at:
        job, environment = new_job_id("dev", now=at.deps.now()), ActivityEnvironment()
        environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=job)
        order = at.shop.sign_in("ops").order(job, now=at.deps.now(), spec=SPEC)

        def decide() -> StartDecisions:
            return environment.run(JobActivities(at.deps).decide_requests, order)

        first = decide()
        assert [request.decision.outcome for request in first.requests] == ["allowed"]
        assert decide() == first
        # People could not approve a request of which the ledger says that policy allows it.
        reads = folder / "policies" / "reads.cedar"
        reads.write_text(reads.read_text().replace("resource.sensitivity <= 2", "resource.sensitivity <= 2 && context.approved_tier >= 1"))
        at.deps.config.refresh()
        assert "decided otherwise" in str(decide().refused)
        assert "job.refused" in at.entry_types(job)


@pytest.mark.parametrize("step", IN_THREADS, ids=lambda step: step.__name__)
def test_no_exception_is_raised_in_the_thread_of_a_cancelled_step(step: Callable[..., Any]) -> None:
    assert _Definition.must_from_callable(step).no_thread_cancel_exception
