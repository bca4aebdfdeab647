"""However a job's workflow ends, at any step: no credential of it works, and store, ledger and Temporal agree."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from temporalio.client import WorkflowExecutionStatus

from tests.chaos.administrator import Administrator
from tests.chaos.cases import CASES, MENDED, REFUSED, STUCK_ENDINGS, FaultOutcome, strike_all
from tests.chaos.consistency import assert_sources_agree, endings
from tests.chaos.rig import Rig
from tests.chaos.steps import set_stage
from tests.support.people import Human
from tests.support.shop import Shop

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def struck(rig: Rig, ops: Human, lead: Human, shop: Shop, administrator: Administrator) -> Iterator[FaultOutcome]:
    """Every job after the fault at its step, without a working login."""
    with set_stage(rig, shop, ops, lead) as stage:
        yield strike_all(stage, administrator)


@pytest.fixture(scope="module")
def mended(rig: Rig, struck: FaultOutcome) -> FaultOutcome:
    """The same, after the start of a worker without the bug."""
    rig.start_alone(**MENDED)
    return struck


@pytest.mark.parametrize("name", STUCK_ENDINGS)
def test_a_job_whose_workflow_is_stuck_has_lost_its_access_and_is_shown_as_open(
    struck: FaultOutcome, name: str, ops: Human, shop: Shop, administrator: Administrator
) -> None:
    job = struck.jobs[name]
    assert not shop.can_log_in(struck.logins[job])
    assert (shop.users_of(job), shop.tokens_of(job)) == ([], [])
    assert (ops.job(job)["state"], endings(ops, job)) == ("revoking", [])
    assert administrator.status(job) is WorkflowExecutionStatus.RUNNING
    by = {entry["data"]["by"] for entry in ops.ledger(job) if entry["type"] == "revocation.started"}
    assert by == ({"sweep"} if name == "its worker is lost" else {"session"})


@pytest.mark.parametrize("name", STUCK_ENDINGS)
def test_a_job_whose_workflow_was_stuck_ends_truly_once_a_good_worker_runs(
    mended: FaultOutcome, name: str, ops: Human, shop: Shop, administrator: Administrator
) -> None:
    seen = ops.until(mended.jobs[name])
    assert (seen["state"], seen["reason"]) == STUCK_ENDINGS[name]
    assert_sources_agree(seen, ops, administrator)
    shop.assert_dead(seen, mended.logins[seen["id"]])


@pytest.mark.parametrize("name", CASES)
def test_a_job_with_a_fault_at_any_step_has_one_true_ending_and_no_access(
    mended: FaultOutcome, name: str, ops: Human, shop: Shop, administrator: Administrator
) -> None:
    case, job = CASES[name], mended.jobs[name]
    seen = ops.until(job)
    assert (seen["state"], seen["reason"]) == (case.state, case.reason)
    assert_sources_agree(seen, ops, administrator)
    shop.assert_dead(seen, *mended.logins_of(job))
    assert seen["revocation"]["state"] == "confirmed"
    types = [entry["type"] for entry in ops.ledger(job)]
    assert types.count("credential.issued") == len(seen["credentials"]) <= case.issued
    assert ("job.refused" in types) == (case.reason == REFUSED)


@pytest.mark.parametrize("name", ["guarded, terminated", "guarded, deleted"])
def test_a_guard_revokes_a_job_whose_workflow_is_gone(mended: FaultOutcome, name: str, administrator: Administrator) -> None:
    assert administrator.result(f"{mended.jobs[name]}-guard") is True


def test_a_job_with_a_fault_lost_its_access_long_before_its_ttl(struck: FaultOutcome) -> None:
    for name, job in struck.jobs.items():
        if job in struck.exposed:
            print(f"{name}: login refused after {struck.exposed[job]:.1f} s")  # noqa: T201 - figures that people look up
    assert max(struck.exposed.values()) < 180
