"""What the sweep does about people's requests that nobody has carried out: to revoke a credential, to kill a job, or to run one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, NoReturn, cast

import pytest
from temporalio.client import WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities import sweep_activity
from activities.sweep_activity import CLAIM_LEASE, MAX_REPORTED, SweepActivities, SweepVerdict
from justenough.adapters.targets.postgres import TargetInspection
from justenough.domain.approvals.statements import MAX_STATEMENT_LIFETIME
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, Event, EventType, build_event
from tests.activities.vault_shop import Desk, submission
from tests.adapters.store import event_samples as samples

pytestmark = pytest.mark.servers


class BusyTemporal:
    """A Temporal in which every job's workflow runs."""

    def __init__(self, at: Desk) -> None:
        self._about = {"workflow_type": "Job", "task_queue": at.deps.settings.task_queue, "status": WorkflowExecutionStatus.RUNNING}
        self._now = at.deps.now

    def get_workflow_handle(self, _: str) -> BusyTemporal:
        return self

    async def describe(self, **_: object) -> SimpleNamespace:
        pending = SimpleNamespace(pending_activities=())
        return SimpleNamespace(**self._about, run_id="another run", start_time=self._now(), raw_description=pending)


async def test_a_request_to_revoke_is_carried_out_without_reading_what_the_job_had_before(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent that runs for days may have had tens of thousands of credentials, and every sweep checks it."""
    job = at.job()
    held, sweep = at.issue(job), SweepActivities(at.deps, cast("Any", BusyTemporal(at)))

    def requested(credential: str) -> Event:
        who = {"person": "e-ops", "name": "ops"}
        return build_event(EventType.REVOCATION_REQUESTED, job, at=at.deps.now(), about=credential, credential=credential, **who)

    at.deps.store.ledger.append([requested(f"{held.credential.id}.{number}") for number in range(2, 103)])
    at.deps.store.ledger.append([requested(held.credential.id)])
    at.clock.ahead = timedelta(seconds=10)
    for repository, name in ((at.deps.store.jobs, "get"), (at.deps.store.ledger, "entries"), (at.deps.store.requests, "of_jobs")):
        monkeypatch.setattr(repository, name, lambda *_, **__: pytest.fail("the whole job is read"))
    assert await sweep._check(job) is None
    assert not at.shop.can_log_in(held)


async def test_what_was_issued_on_an_approval_is_revoked_after_its_withdrawal_if_no_worker_did(at: Desk) -> None:
    job, now = at.job(), at.deps.now()
    held, sweep = at.issue(job), SweepActivities(at.deps, cast("Any", BusyTemporal(at)))
    request, who = held.credential.request_id, {"person": "e-lead", "name": "lead"}
    fields = {"request": request, **who, "reason": "a mistake", "signed": {}, "verdict": "withdrawn"}
    withdrawn = build_event(EventType.APPROVAL_WITHDRAWN, job, at=now, about=request, **fields)
    asked = samples.access_decision("needs_approval", job), samples.approval_opening(job)
    at.deps.store.ledger.append([*asked, samples.approval_decision("approved", job)])
    assert await sweep._check(job) is None
    assert at.shop.can_log_in(held)
    at.deps.store.ledger.append([withdrawn])
    assert await sweep._check(job) is None
    assert not at.shop.can_log_in(held)


async def test_a_sweep_reads_nothing_about_single_credentials_of_a_job_in_which_nobody_requested_a_revocation(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = at.job()
    held = at.issue(job)
    monkeypatch.setattr(at.deps.store.ledger, "entries_about", lambda *_: pytest.fail("a single credential is looked up"))
    at.clock.ahead = timedelta(seconds=10)
    assert await SweepActivities(at.deps, cast("Any", BusyTemporal(at)))._check(job) is None
    assert at.shop.can_log_in(held)


async def test_a_report_fits_into_a_payload_however_much_is_left_over_and_the_ledger_has_every_unknown_job(
    at: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {new_job_id(at.deps.settings.installation, now=at.clock.now()) for _ in range(3 * MAX_REPORTED)}
    failing = set(sorted(found)[:MAX_REPORTED])

    async def check(job: str, _: float) -> tuple[str, str, str]:
        return ("failed", job, "鍵" * 2_000) if job in failing else ("unknown", job, "")

    sweep = SweepActivities(at.deps, cast("Any", None))
    monkeypatch.setattr(at.deps.targets, "job_ids", lambda: (found, TargetInspection()))
    monkeypatch.setattr(sweep, "_check_in_time", lambda _, job, end: check(job, end))
    append, recorded_at_once = at.deps.store.ledger.append, list[int]()

    def count_and_append(events: Sequence[Event]) -> None:
        recorded_at_once.append(len(events))
        append(events)

    monkeypatch.setattr(at.deps.store.ledger, "append", count_and_append)
    report = await sweep.run()
    assert max(recorded_at_once) <= MAX_REPORTED, "other writers wait meanwhile"
    # The result has the report twice: once more in the payload that the worker signs.
    assert 2 * len(report.model_dump_json().encode()) < 1_500_000
    assert report.unlisted == report.looked_at - 2 * MAX_REPORTED
    assert (len(report.unknown), report.failures[-1]) == (MAX_REPORTED, f"{MAX_REPORTED - len(report.failures) + 1} more")
    assert len(at.deps.store.ledger.ids(UNATTRIBUTED_CHAIN, [EventType.SWEEP_REPORTED])) >= 2 * MAX_REPORTED


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


async def test_a_job_with_requests_that_temporal_does_not_know_any_more_is_lost(at: Desk, unstarted: str) -> None:
    sweep, states = SweepActivities(at.deps, cast("Any", EmptyTemporal())), []
    at.deps.store.ledger.append([samples.access_request(unstarted, at=at.clock.now())])
    for at.clock.ahead in (timedelta(), CLAIM_LEASE + timedelta(seconds=1)):
        await sweep._check(unstarted)
        states += [job.state for job in at.deps.store.jobs.by_ids([unstarted])]
    assert states == [JobState.PENDING, JobState.LOST]


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


@pytest.mark.parametrize(
    "left_s, behaves, verdict",
    [
        (-1, "well", ("waiting", "j-1", "left to the next sweep")),
        (60, "well", None),
        (60, "hangs", ("failed", "j-1", "not done in 0 s")),
        (60, "fails", ("failed", "j-1", "RuntimeError")),
    ],
)
async def test_a_job_that_a_sweep_could_not_check_is_reported_with_the_reason(
    at: Desk, monkeypatch: pytest.MonkeyPatch, left_s: float, behaves: str, verdict: SweepVerdict | None
) -> None:
    async def check(_: str) -> None:
        if behaves == "hangs":
            await asyncio.Event().wait()
        if behaves == "fails":
            raise RuntimeError

    sweep = SweepActivities(at.deps, cast("Any", None))
    monkeypatch.setattr(sweep, "_check", check)
    monkeypatch.setattr(sweep_activity, "JOB_TIMEOUT_S", 0.01)
    end = asyncio.get_running_loop().time() + left_s
    assert await sweep._check_in_time(asyncio.Semaphore(), "j-1", end) == verdict
