"""The sweep: compares what is alive in Vault and in the targets with the open jobs, and revokes what is left over.

It revokes only on evidence: the job is closed in the store or in Temporal; or Temporal does not know it and its session's lease has
expired; or its session is dead and its workflow is open but does not revoke, because of a bug. Such a job stays open until its workflow
closes it. What belongs to no known job is only reported: it may be another installation's, or a restored server's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.revocation import revoke
from activities.revocation.proof import has_standing_proof
from activities.support.async_tools import send_heartbeats
from justenough.adapters.store import SessionClaim
from justenough.adapters.targets.postgres import TargetInspection
from justenough.domain.contracts.workflow_messages import SweepReport
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, Event, EventType, build_event
from justenough.domain.readmodel.views import JobView, TargetCheck
from justenough.services.dependencies import Deps

MIN_JOB_AGE = timedelta(seconds=10)
"""The sweep leaves younger jobs alone."""
CLAIM_LEASE = timedelta(seconds=60)
"""A session whose lease was not renewed for this long counts as dead."""
UNSTARTED_TIMEOUT = timedelta(minutes=5)
"""How long the console may take to start the workflow of an accepted job."""
MAX_CONCURRENT_JOBS = 8
SWEEP_BUDGET_S = 35.0
"""Seconds after which a sweep starts no more jobs; with JOB_TIMEOUT_S it ends within its activity's minute."""
JOB_TIMEOUT_S = 20.0
"""Seconds for one job's attempt, so that one stuck target does not block the rest."""
SWEEP_POOL = ThreadPoolExecutor(MAX_CONCURRENT_JOBS, thread_name_prefix="sweep")
"""Separate threads: an attempt that timed out keeps its thread, and sessions must not wait for it."""

SweepVerdict = tuple[str, str, str]
"""The outcome for a job (revoked, lost, unknown, failed, or waiting for the next sweep), its id, and the reason."""


class SweepActivities:
    """Lists what is alive, asks Temporal about each job by name, and makes one bounded attempt per job."""

    def __init__(self, deps: Deps, temporal: Client) -> None:
        self._deps = deps
        self._temporal = temporal
        self._stuck: frozenset[str] = frozenset()
        """Jobs that could not be revoked last time; they come after all others."""

    @activity.defn(name="sweep")
    async def sweep(self) -> SweepReport:
        """Run one sweep and return its report. It sends heartbeats, so that after its worker's death the next sweep starts soon."""
        async with send_heartbeats():
            # List what is alive before reading the jobs, so that a job that starts meanwhile is not mistaken for a leftover.
            traced, inspection = await asyncio.to_thread(self._deps.targets.job_ids)
            prefixed = await asyncio.to_thread(self._deps.vault.job_prefixes, self._deps.settings.installation)
            still_open = await asyncio.to_thread(self._deps.store.jobs.open, self._deps.now() - MIN_JOB_AGE)
            jobs = {*traced, *prefixed, *still_open}
            gate, end = asyncio.Semaphore(MAX_CONCURRENT_JOBS), asyncio.get_running_loop().time() + SWEEP_BUDGET_S
            # Stuck jobs come last, so that they do not keep the sweep from the others.
            ordered = [*_rotate(jobs - self._stuck), *_rotate(jobs & self._stuck)]
            checked = await asyncio.gather(*(self._check_in_time(gate, job, end) for job in ordered))
            verdicts = [verdict for verdict in checked if verdict is not None]
            self._stuck = frozenset(job for what, job, _ in verdicts if what == "failed")
            report = SweepReport(
                looked_at=len(checked),
                revoked=tuple(job for what, job, _ in verdicts if what == "revoked"),
                lost=tuple(job for what, job, _ in verdicts if what == "lost"),
                unknown=tuple(job for what, job, _ in verdicts if what == "unknown"),
                failures=(*inspection.failures, *(f"{job}: {why}" for what, job, why in verdicts if what in {"failed", "waiting"})),
                at=self._deps.now(),
            )
            # One event per unknown job: a set would be reported again whenever one job is added or removed.
            unknown = [
                build_event(EventType.SWEEP_REPORTED, UNATTRIBUTED_CHAIN, at=self._deps.now(), about=job, unknown=[job])
                for job in report.unknown
            ]
            await asyncio.to_thread(self._deps.store.ledger.append, unknown)
            if self._deps.config.digest_in_force is not None:
                checks = target_checks(inspection, at=self._deps.now())
                await asyncio.to_thread(self._deps.store.targets.record, checks)
            # If the ledger fails now, the next sweep finds these credentials again.
            await asyncio.to_thread(revoke.record_lapsed, self._deps)
            return report

    async def _check_in_time(self, gate: asyncio.Semaphore, job: str, end: float) -> SweepVerdict | None:
        """Check one job, if the sweep's budget allows, and turn every failure into a verdict."""
        async with gate:
            if asyncio.get_running_loop().time() > end:
                return "waiting", job, "left to the next sweep"
            try:
                return await asyncio.wait_for(self._check(job), JOB_TIMEOUT_S)
            except TimeoutError:
                return "failed", job, f"not done in {JOB_TIMEOUT_S:.0f} s"
            except Exception as error:  # noqa: BLE001 - one job's failure must not keep the sweep from the others
                return "failed", job, type(error).__name__

    async def _check(self, job: str) -> SweepVerdict | None:
        view = await asyncio.to_thread(self._deps.store.jobs.get, job)
        if view is None:
            return "unknown", job, ""
        if view.state.ended:
            return await self._revoke_leftover(job, view, "left over after the job's end")
        execution: WorkflowExecutionDescription | None = None
        try:
            execution = await self._temporal.get_workflow_handle(job).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        if await self._is_closed(job, view, execution):
            return await self._close_lost(job, view)
        pending = execution.raw_description.pending_activities if execution else ()
        waits = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        running = {item.activity_type.name for item in pending if item.activity_type.name == "revoke_job" or item.state != waits}
        # A revocation, even one that waits for a worker, and a running session will revoke the job's access.
        if execution and not running & {"revoke_job", "run_session"}:
            claim = await asyncio.to_thread(self._deps.store.claims.get, job)
            if claim and self._is_claim_over(claim):
                return await self._revoke_leftover(job, view, "its session is gone, and its workflow is not revoking")
        return None

    async def _revoke_leftover(self, job: str, view: JobView, why: str) -> SweepVerdict | None:
        if view.revocation.state.is_settled and not await asyncio.to_thread(self._has_traces, job):
            return None
        result = await self._revoke(job, why)
        return ("revoked", job, "") if result.confirmed else _retry_verdict(job, result)

    async def _close_lost(self, job: str, view: JobView) -> SweepVerdict:
        unrecorded: tuple[Event, ...] = ()
        # A session that learned of its workflow's end has recorded its proof already.
        if not view.revocation.state.is_proven or await asyncio.to_thread(self._has_traces, job):
            result = await self._revoke(job, "its workflow is gone")
            if not result.confirmed:
                return _retry_verdict(job, result)
            unrecorded = result.events
        lost, why = JobState.LOST.value, "its workflow closed without a result"
        ended = build_event(EventType.JOB_ENDED, job, at=self._deps.now(), state=lost, exit_code=None, reason=why)
        await asyncio.to_thread(self._deps.store.ledger.append, [*unrecorded, ended])
        return "lost", job, ""

    async def _revoke(self, job: str, why: str) -> revoke.RevocationResult:
        def attempt() -> revoke.RevocationResult:
            # This job may have waited a while for a thread. If another revocation has recorded its proof meanwhile, another attempt would put
            # the job in doubt again.
            if has_standing_proof(self._deps, job) and not self._deps.targets.traces_of(job):
                return revoke.RevocationResult(confirmed=True)
            return revoke.revoke(self._deps, job, by="sweep", why=why, settled=False)

        return await asyncio.get_running_loop().run_in_executor(SWEEP_POOL, attempt)

    async def _is_closed(self, job: str, view: JobView, execution: WorkflowExecutionDescription | None) -> bool:
        """Whether there is evidence that the job's workflow will never run again."""
        if execution is None:
            claim = await asyncio.to_thread(self._deps.store.claims.get, job)
            if claim is not None:
                return self._is_claim_over(claim)
            # A job whose requests were decided had a workflow, and the console does not start it a second time.
            return self._deps.now() - view.created_at > (CLAIM_LEASE if view.requests else UNSTARTED_TIMEOUT)
        # Another workflow with this id proves nothing about the job.
        ours = (execution.workflow_type, execution.task_queue) == ("Job", self._deps.settings.task_queue)
        return not ours or execution.status is not WorkflowExecutionStatus.RUNNING

    def _is_claim_over(self, claim: SessionClaim) -> bool:
        return not claim.open or self._deps.now() - claim.renewed_at > CLAIM_LEASE

    def _has_traces(self, job: str) -> bool:
        return bool(self._deps.vault.prefix_accessors(job)) or bool(self._deps.targets.traces_of(job))


def target_checks(inspection: TargetInspection, *, at: datetime) -> tuple[TargetCheck, ...]:
    """Return what an inspection of all targets tells of each. One that is looked into as several observers fails if one of them does."""
    failing = (failure.removeprefix("target ").partition(": ") for failure in inspection.failures)
    found = dict.fromkeys(inspection.inspected) | {name: why for name, _, why in failing}
    return tuple(TargetCheck(name=name, failure=why, since=at, checked_at=at) for name, why in found.items())


def _retry_verdict(job: str, result: revoke.RevocationResult) -> SweepVerdict:
    return ("failed", job, "; ".join(result.failures)) if result.failures else ("waiting", job, "a second check is pending")


def _rotate(jobs: AbstractSet[str]) -> list[str]:
    """Return the jobs in sorted order from a random start, so that each job comes first sometimes."""
    start = secrets.choice(sorted(jobs)) if jobs else ""
    return sorted(jobs, key=lambda job: (job < start, job))
