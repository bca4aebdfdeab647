"""A job takes a place by its verified order; starting a workflow with a false order gives nobody more places."""

from __future__ import annotations

import secrets
from dataclasses import replace

import pytest
from temporalio.testing import ActivityEnvironment

from activities.job_activities import JobActivities, NoPlaceLeft
from activities.support.caller_check import NotTheirs
from justenough.domain.contracts.workflow_messages import JobInput
from justenough.domain.core.ids import new_job_id
from justenough.services.ledger_events import job_submitted_event
from justenough.services.verify_order import VerifiedOrder, verify_order
from tests.activities.vault_shop import SPEC, Desk, Someone

pytestmark = pytest.mark.servers


def take_place(at: Desk, order: JobInput, *, workflow: str | None = None) -> None:
    """Call the activity as a workflow does, by default as the job's own."""
    environment = ActivityEnvironment()
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=workflow or order.job)
    settings = at.deps.settings.model_copy(update={"quota_running_jobs": 1})
    environment.run(JobActivities(replace(at.deps, settings=settings)).take_place, order)


def recorded_order(at: Desk, launcher: Someone) -> JobInput:
    """Return the order of a job that the console has recorded."""
    order = launcher.order(new_job_id("dev", now=at.deps.now()), now=at.deps.now(), spec=SPEC)
    verified = verify_order(at.deps, order, now=at.deps.now())
    assert isinstance(verified, VerifiedOrder), verified
    at.deps.store.ledger.append([job_submitted_event(order, verified, at=at.deps.now())])
    return order


def test_a_job_gets_a_place_once_another_of_its_launcher_has_ended(at: Desk) -> None:
    mark = secrets.token_hex(4)
    launcher, other = (at.shop.newcomer(f"{name}-{mark}", "ops") for name in ("launcher", "other"))
    first, second = recorded_order(at, launcher), recorded_order(at, launcher)
    take_place(at, first)
    with pytest.raises(NoPlaceLeft, match="1 jobs of this launcher are already running; the job starts once one of them has ended"):
        take_place(at, second)
    take_place(at, recorded_order(at, other))
    at.deps.store.claims.close(first.job, at.deps.now())
    take_place(at, second)


def test_unrecorded_and_altered_orders_use_up_no_place_of_the_launcher(at: Desk) -> None:
    launcher = at.shop.newcomer(f"launcher-{secrets.token_hex(4)}", "ops")
    order = recorded_order(at, launcher)
    unrecorded = launcher.order(new_job_id("dev", now=at.deps.now()), now=at.deps.now(), spec=SPEC)
    altered = order.model_copy(update={"spec": {**order.spec, "name": "another"}})
    for strange in (unrecorded, altered):
        take_place(at, strange)
    with pytest.raises(NotTheirs):
        take_place(at, order, workflow="j-dev-anothers")
    take_place(at, recorded_order(at, launcher))


def test_a_job_that_the_store_has_lost_waits_until_a_place_is_free(at: Desk) -> None:
    launcher = at.shop.newcomer(f"launcher-{secrets.token_hex(4)}", "ops")
    first = recorded_order(at, launcher)
    take_place(at, first)
    lost = launcher.order(new_job_id("dev", now=at.deps.now()), now=at.deps.now(), spec=SPEC)
    with pytest.raises(NoPlaceLeft):
        take_place(at, lost)
    at.deps.store.claims.close(first.job, at.deps.now())
    take_place(at, lost)
