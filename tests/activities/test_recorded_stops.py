"""A stop in the ledger ends issuing, whether or not a signal has reached the session: nothing more is issued, and what is held stays until the end."""

from __future__ import annotations

import secrets
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from temporalio.testing import ActivityEnvironment

from activities.delivery.identity_token import issue_identity_token
from activities.issuing.results import AccessClosed, IssuedCredential
from activities.session_activity import SessionActivities
from justenough.adapters.store.errors import StoreUnavailable
from justenough.domain.contracts.workflow_messages import GrantedRequest, JobInput, SessionInput, SessionResult
from justenough.domain.core.ids import new_job_id, request_id
from justenough.domain.jobs.spec import Access
from justenough.domain.jobs.states import Action, JobState
from justenough.domain.ledger.events import EventType, build_event
from tests.activities.issuing_session import Session, start_session
from tests.activities.vault_shop import SPEC, Desk

pytestmark = pytest.mark.servers

READ = Access(resource="orders-db", action=Action.READ, ttl=300, reason="Look the order up", at="request")
STOPS = pytest.mark.parametrize("how, outcome", [("kill", JobState.KILLED), ("cancel", JobState.CANCELLED)])
AUDIENCE = "https://helpdesk.example"


def record_stop(at: Desk, job: str, how: str = "cancel") -> None:
    who = {"person": "e-ops", "name": "ops"}
    at.deps.store.ledger.append([build_event(EventType.STOP_REQUESTED, job, at=at.deps.now(), about=f"{how}/e-ops", how=how, **who)])


def new_order(at: Desk) -> JobInput:
    """Return a signed order that policy allows without approval."""
    launcher = at.shop.newcomer(f"launcher-{secrets.token_hex(4)}", "ops")
    return launcher.order(new_job_id("dev", now=at.deps.now()), now=at.deps.now(), spec=SPEC)


async def run_session(at: Desk, order: JobInput) -> SessionResult:
    """Run a session of a job as its workflow would, without any signal, with its first request granted."""
    environment = ActivityEnvironment(client=cast("Any", SimpleNamespace(get_workflow_handle=lambda *_, **__: None)))
    environment.info = replace(ActivityEnvironment.default_info(), workflow_type="Job", workflow_id=order.job)
    granted = GrantedRequest(id=request_id(order.job, 1), number=1, answers=())
    return await environment.run(SessionActivities(at.deps, cast("Any", None)).run_session, SessionInput(order=order, granted=(granted,)))


def assert_nothing_issued(at: Desk, job: str) -> None:
    assert at.deps.vault.prefix_accessors(job) == ()
    assert at.shop.users_of(job) == []
    types = {entry.type for entry in at.deps.store.ledger.entries(job=job).items}
    assert not types & {EventType.CREDENTIAL_ISSUED, EventType.JOB_STARTED}


@STOPS
async def test_a_session_of_a_stopped_job_ends_without_a_claim(at: Desk, how: str, outcome: JobState) -> None:
    order = new_order(at)
    record_stop(at, order.job, how)
    result = await run_session(at, order)
    assert (result.outcome, result.stopped, result.clean) == (outcome, True, False)
    assert at.deps.store.claims.get(order.job) is None
    assert_nothing_issued(at, order.job)


@STOPS
@pytest.mark.parametrize("closes_claim", [False, True], ids=["claim open", "claim closed"])
async def test_a_stop_that_is_recorded_while_a_session_starts_keeps_it_from_issuing(
    at: Desk, monkeypatch: pytest.MonkeyPatch, how: str, outcome: JobState, *, closes_claim: bool
) -> None:
    order, claim = new_order(at), at.deps.store.claims.claim

    def stop_and_claim(job: str, **options: Any) -> Any:
        if closes_claim:
            at.deps.store.claims.close(job, at.deps.now())
        record_stop(at, job, how)
        return claim(job, **options)

    monkeypatch.setattr(at.deps.store.claims, "claim", stop_and_claim)
    result = await run_session(at, order)
    assert (result.outcome, result.stopped) == (outcome, True)
    assert_nothing_issued(at, order.job)


async def test_a_process_is_not_started_if_a_stop_was_recorded_after_the_last_issue(at: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    order, issue = new_order(at), at.deps.vault.issue

    def issue_and_stop(*arguments: Any) -> Any:
        issued = issue(*arguments)
        record_stop(at, order.job)
        return issued

    monkeypatch.setattr(at.deps.vault, "issue", issue_and_stop)
    # There is no sandbox that could start a process.
    result = await run_session(at, order)
    assert (result.outcome, result.stopped) == (JobState.CANCELLED, True)
    assert EventType.JOB_STARTED not in {entry.type for entry in at.deps.store.ledger.entries(job=order.job).items}
    assert at.shop.users_of(order.job) == []


@pytest.fixture
def running(at: Desk) -> Session:
    """A session whose job runs and holds one credential."""
    session = start_session(at, {**SPEC["access"][0], "ttl": "5m"})
    assert session.issue().credential.user
    return session


def test_a_running_job_gets_nothing_new_once_its_stop_is_recorded_but_keeps_what_it_holds(at: Desk, running: Session) -> None:
    another = running.issuer.access(READ)
    assert isinstance(another, IssuedCredential)
    record_stop(at, running.job)
    users = at.shop.users_of(running.job)
    with pytest.raises(AccessClosed, match="somebody asked the job to end"):
        running.issuer.access(READ)
    with pytest.raises(AccessClosed, match="somebody asked the job to end"):
        running.issue()
    assert at.shop.users_of(running.job) == users
    assert len(users) == 2
    assert running.issuer.reason_to_end(another) is None
    refused = [entry.data["why"] for entry in at.deps.store.ledger.entries(job=running.job, types=[EventType.CREDENTIAL_REFUSED]).items]
    assert refused == ["somebody asked the job to end, so nothing more is issued to it"] * 2
    assert running.end().confirmed


def test_a_stop_that_is_recorded_while_an_issue_waits_for_its_target_ends_that_issue(
    at: Desk, running: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = at.shop.users_of(running.job)
    monkeypatch.setattr(at.deps.targets, "require_reaper", lambda _target: record_stop(at, running.job))
    with pytest.raises(AccessClosed, match="somebody asked the job to end"):
        running.issuer.access(READ)
    assert at.shop.users_of(running.job) == users
    assert running.end().confirmed


def test_a_job_gets_no_identity_token_once_its_stop_is_recorded(at: Desk, running: Session) -> None:
    deps = replace(at.deps, settings=at.deps.settings.model_copy(update={"job_issuer": "https://je.example"}))
    assert issue_identity_token(deps, running.verified, AUDIENCE, owner="owner").reveal()
    record_stop(at, running.job)
    with pytest.raises(AccessClosed, match="somebody asked the job to end"):
        issue_identity_token(deps, running.verified, AUDIENCE, owner="owner")
    assert running.end().confirmed


def test_nothing_is_issued_while_nobody_can_tell_whether_the_job_was_stopped(
    at: Desk, running: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_no_store(_job: str) -> NoReturn:
        raise StoreUnavailable("failing over")

    users = at.shop.users_of(running.job)
    with monkeypatch.context() as patched:
        patched.setattr(at.deps.store.claims, "get", find_no_store)
        with pytest.raises(StoreUnavailable):
            running.issuer.access(READ)
    assert at.shop.users_of(running.job) == users
    assert running.end().confirmed
