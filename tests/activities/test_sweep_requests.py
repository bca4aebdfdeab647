"""What the sweep does about people's requests that nobody has carried out: to revoke a credential, to kill a job, or to run one."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NoReturn, cast

import pytest
from temporalio.service import RPCError, RPCStatusCode

from activities.sweep_activity import SweepActivities
from justenough.domain.approvals.statements import MAX_STATEMENT_LIFETIME
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import Event, EventType, build_event
from tests.activities.vault_shop import Desk, submission

pytestmark = pytest.mark.servers


async def test_a_request_to_revoke_is_carried_out_however_many_came_before_it(at: Desk) -> None:
    job = at.job()
    held, sweep = at.issue(job), SweepActivities(at.deps, cast("Any", None))

    def requested(credential: str) -> Event:
        who = {"person": "e-ops", "name": "ops"}
        return build_event(EventType.REVOCATION_REQUESTED, job, at=at.deps.now(), about=credential, credential=credential, **who)

    at.deps.store.ledger.append([requested(f"{held.credential.id}.{number}") for number in range(2, 103)])
    at.deps.store.ledger.append([requested(held.credential.id)])
    at.clock.ahead = timedelta(seconds=10)
    view = at.deps.store.jobs.get(job)
    assert view is not None
    assert await sweep._revoke_requested(job, view) is None
    assert not at.shop.can_log_in(held)


class EmptyTemporal:
    """A Temporal that knows no workflow."""

    def get_workflow_handle(self, _: str) -> EmptyTemporal:
        return self

    async def describe(self, **_: object) -> NoReturn:
        raise RPCError("no such workflow", RPCStatusCode.NOT_FOUND, b"")


@pytest.fixture
def unstarted(at: Desk) -> str:
    """A job that a console has accepted and could not start, because Temporal was down."""
    job = new_job_id(at.deps.settings.installation, now=at.clock.now())
    at.deps.store.ledger.append([submission(job, at.clock.now())])
    return job


async def test_an_accepted_job_that_temporal_does_not_know_yet_is_left_to_the_console(at: Desk, unstarted: str) -> None:
    sweep = SweepActivities(at.deps, cast("Any", EmptyTemporal()))
    at.clock.ahead = MAX_STATEMENT_LIFETIME - timedelta(minutes=1)
    assert await sweep._check(unstarted) is None
    at.clock.ahead = MAX_STATEMENT_LIFETIME + timedelta(minutes=1)
    assert await sweep._check(unstarted) == ("lost", unstarted, "")


@pytest.mark.parametrize("how, state", [("kill", JobState.KILLED), ("cancel", JobState.CANCELLED)])
async def test_a_job_that_was_stopped_before_it_could_be_started_is_recorded_so(
    at: Desk, unstarted: str, how: str, state: JobState
) -> None:
    who = {"person": "e-ops", "name": "ops"}
    at.deps.store.claims.close(unstarted, at.clock.now())
    at.deps.store.ledger.append([build_event(EventType.STOP_REQUESTED, unstarted, at=at.clock.now(), about=f"{how}/e-ops", how=how, **who)])
    await SweepActivities(at.deps, cast("Any", EmptyTemporal()))._check(unstarted)
    view = at.deps.store.jobs.get(unstarted)
    assert view is not None
    assert (view.state, view.reason) == (state, None)
