"""The sweep: compares what is alive in Vault and in the targets with the jobs that are open, and revokes what is left over.

Revokes on positive evidence only: the job is closed in the store or in Temporal, or Temporal no longer knows it and its session's
lease has run out, or its session is gone and its workflow, which still stands, does not revoke: a bug keeps it from going on. Such a job
stays open; its workflow tells how it ended once it can. What belongs to no known job is reported: it may be another installation's, or a
restored server's.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.api.workflow.v1 import PendingActivityInfo
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.revocation import revoke
from activities.revocation.proof import has_standing_proof
from activities.support.async_tools import send_heartbeats
from justenough.adapters.store import SessionClaim
from justenough.domain.contracts.workflow_messages import SweepReport
from justenough.domain.jobs.states import JobState, RevocationState
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, Event, EventType, build_event
from justenough.domain.readmodel.views import JobView
from justenough.services.dependencies import Deps

MIN_JOB_AGE = timedelta(seconds=10)
"""Jobs younger than this are left to their own nets."""
CLAIM_LEASE = timedelta(seconds=60)
"""A session whose lease was not renewed for this long is gone."""
UNSTARTED_TIMEOUT = timedelta(minutes=5)
"""A job that Temporal does not know and that was never decided was accepted and never started; its console may still start it."""
MAX_CONCURRENT_JOBS = 8
SWEEP_BUDGET_S = 35.0
"""Seconds in which a sweep begins with jobs; with PER_JOB it ends within its activity's minute."""
JOB_TIMEOUT_S = 20.0
"""Seconds for one job's attempt: one stuck target never blocks the rest."""
SWEEP_POOL = ThreadPoolExecutor(MAX_CONCURRENT_JOBS, thread_name_prefix="sweep")
"""Threads of their own: an attempt that is given up holds its thread on, and sessions must not wait for it."""

SweepVerdict = tuple[str, str, str]
"""What became of a job (revoked, lost, unknown, failed, or waiting for the next sweep), its id, and why."""


class SweepActivities:
    """Lists what is alive, asks Temporal about each job by name, and makes one bounded attempt per job."""

    def __init__(self, deps: Deps, temporal: Client) -> None:
        self._deps = deps
        self._temporal = temporal
        self._stuck: frozenset[str] = frozenset()
        """Jobs that could not be revoked last time; they come after all others."""

    @activity.defn(name="sweep")
    async def sweep(self) -> SweepReport:
        """Run one sweep and return its report. It sends heartbeats: no other sweep starts while this one is thought to run, so its death must show."""
        async with send_heartbeats():
            # List what is alive before looking the jobs up, so that a job which starts meanwhile is never taken for a leftover.
            traced, failures = await asyncio.to_thread(self._deps.targets.job_ids)
            prefixed = await asyncio.to_thread(self._deps.vault.job_prefixes, self._deps.settings.installation)
            still_open = await asyncio.to_thread(self._deps.store.jobs.open, self._deps.now() - MIN_JOB_AGE)
            jobs = {*traced, *prefixed, *still_open}
            gate, end = asyncio.Semaphore(MAX_CONCURRENT_JOBS), asyncio.get_running_loop().time() + SWEEP_BUDGET_S
            # Jobs that are stuck come last: they must not keep a sweep from all others.
            ordered = [*_rotate(jobs - self._stuck), *_rotate(jobs & self._stuck)]
            checked = await asyncio.gather(*(self._check_in_time(gate, job, end) for job in ordered))
            verdicts = [verdict for verdict in checked if verdict is not None]
            self._stuck = frozenset(job for what, job, _ in verdicts if what == "failed")
            report = SweepReport(
                looked_at=len(checked),
                revoked=tuple(job for what, job, _ in verdicts if what == "revoked"),
                lost=tuple(job for what, job, _ in verdicts if what == "lost"),
                unknown=tuple(job for what, job, _ in verdicts if what == "unknown"),
                failures=(*failures, *(f"{job}: {why}" for what, job, why in verdicts if what in {"failed", "waiting"})),
                at=self._deps.now(),
            )
            # Each unknown job has an event of its own: as a set they would be reported again whenever one of them comes or goes.
            unknown = [
                build_event(EventType.SWEEP_REPORTED, UNATTRIBUTED_CHAIN, at=self._deps.now(), about=job, unknown=[job])
                for job in report.unknown
            ]
            await asyncio.to_thread(self._deps.store.ledger.append, unknown)
            # What the ledger cannot take now, the next sweep finds again.
            await asyncio.to_thread(revoke.record_lapsed, self._deps)
            return report

    async def _check_in_time(self, gate: asyncio.Semaphore, job: str, end: float) -> SweepVerdict | None:
        async with gate:
            if asyncio.get_running_loop().time() > end:
                return "waiting", job, "left to the next sweep"
            try:
                return await asyncio.wait_for(self._check(job), JOB_TIMEOUT_S)
            except TimeoutError:
                return "failed", job, f"not done in {JOB_TIMEOUT_S:.0f} s"
            except Exception as error:  # noqa: BLE001 - one job's trouble must not keep the sweep from the others
                return "failed", job, type(error).__name__

    async def _check(self, job: str) -> SweepVerdict | None:
        known = await asyncio.to_thread(self._deps.store.jobs.get, job)
        if known is None:
            # A workflow that runs without our store's knowledge is not ours to end, one that does not run is not ours to know.
            return "unknown", job, ""
        if known.state.ended:
            return await self._revoke_leftover(job, known, "left over after its end")
        described = await self._describe_workflow(job)
        if await self._is_closed(job, known, described):
            return await self._close_lost(job, known)
        if described is not None and await self._is_abandoned(job, described):
            return await self._revoke_leftover(job, known, "its session is gone and its workflow does not revoke")
        return None

    async def _revoke_leftover(self, job: str, view: JobView, why: str) -> SweepVerdict | None:
        if view.revocation.state in {RevocationState.NONE, RevocationState.CONFIRMED} and not await asyncio.to_thread(
            self._has_traces, job
        ):
            return None
        result = await self._revoke(job, why)
        return ("revoked", job, "") if result.confirmed else _retry_verdict(job, result)

    async def _close_lost(self, job: str, view: JobView) -> SweepVerdict:
        unrecorded: tuple[Event, ...] = ()
        # A session that heard of its workflow's end has left its proof already.
        if view.revocation.state is not RevocationState.CONFIRMED or await asyncio.to_thread(self._has_traces, job):
            result = await self._revoke(job, "its workflow is gone")
            if not result.confirmed:
                return _retry_verdict(job, result)
            unrecorded = result.events
        ended = build_event(
            EventType.JOB_ENDED,
            job,
            at=self._deps.now(),
            state=JobState.LOST.value,
            exit_code=None,
            reason="its workflow closed without telling",
        )
        await asyncio.to_thread(self._deps.store.ledger.append, [*unrecorded, ended])
        return "lost", job, ""

    async def _revoke(self, job: str, why: str) -> revoke.RevocationResult:
        def attempt() -> revoke.RevocationResult:
            # If other jobs that hang held the threads, this job was checked a while ago. A revocation beside this one may have its proof by now,
            # and another attempt would put the job in doubt again.
            if has_standing_proof(self._deps, job) and not self._deps.targets.traces_of(job):
                return revoke.RevocationResult(confirmed=True)
            return revoke.revoke(self._deps, job, by="sweep", why=why, settled=False)

        return await asyncio.get_running_loop().run_in_executor(SWEEP_POOL, attempt)

    async def _describe_workflow(self, job: str) -> WorkflowExecutionDescription | None:
        """Return what Temporal says of a job's workflow; None where it knows none."""
        try:
            return await self._temporal.get_workflow_handle(job).describe()
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
            return None

    async def _is_closed(self, job: str, view: JobView, execution: WorkflowExecutionDescription | None) -> bool:
        """Whether there is evidence that the job's workflow will never run again."""
        if execution is None:
            claim = await asyncio.to_thread(self._deps.store.claims.get, job)
            if claim is not None:
                return self._is_claim_over(claim)
            # What was decided had a workflow, and nobody starts it a second time.
            return self._deps.now() - view.created_at > (CLAIM_LEASE if view.requests else UNSTARTED_TIMEOUT)
        # Someone else's workflow under this id says nothing about the job.
        ours = (execution.workflow_type, execution.task_queue) == ("Job", self._deps.settings.task_queue)
        return not ours or execution.status is not WorkflowExecutionStatus.RUNNING

    async def _is_abandoned(self, job: str, execution: WorkflowExecutionDescription) -> bool:
        """Whether there is evidence that a job's access is over while nobody sees to it: no session runs, and its workflow does not revoke."""
        if any(map(_ends_access, execution.raw_description.pending_activities)):
            return False
        claim = await asyncio.to_thread(self._deps.store.claims.get, job)
        return claim is not None and self._is_claim_over(claim)

    def _is_claim_over(self, claim: SessionClaim) -> bool:
        return not claim.open or self._deps.now() - claim.renewed_at > CLAIM_LEASE

    def _has_traces(self, job: str) -> bool:
        return bool(self._deps.vault.prefix_accessors(job)) or bool(self._deps.targets.traces_of(job))


def _ends_access(pending: PendingActivityInfo) -> bool:
    kind, waits = pending.activity_type.name, pending.state == PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
    return kind == "revoke_job" or (kind == "run_session" and not waits)


def _retry_verdict(job: str, result: revoke.RevocationResult) -> SweepVerdict:
    return ("failed", job, "; ".join(result.failures)) if result.failures else ("waiting", job, "a second check is still to come")


def _rotate(jobs: AbstractSet[str]) -> list[str]:
    """Return the jobs from another place each time, so that each comes first some time."""
    start = secrets.choice(sorted(jobs)) if jobs else ""
    return sorted(jobs, key=lambda job: (job < start, job))
