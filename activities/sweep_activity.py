"""The sweep: compares what is alive in Vault and in the targets with the open jobs, and revokes what is left over.

It revokes only on evidence: the job is closed in the store or in Temporal; or Temporal does not know the job and its session's lease has
expired; or its session is dead and its workflow is open but no worker revokes, because of a bug or because a stranger took the task. Such a
job stays open until its workflow closes it. Anything that belongs to no known job is only reported: it may belong to another installation
or to a restored server.

Sweeps come through Temporal, from a schedule or a person. Anybody who can write to Temporal can stop these or take their tasks, so workers
also sweep by their own clock when none of them has swept for a while.
"""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_right
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate

import structlog
from temporalio import activity
from temporalio.api.enums.v1 import PendingActivityState
from temporalio.client import Client, WorkflowExecutionDescription, WorkflowExecutionStatus
from temporalio.service import RPCError, RPCStatusCode

from activities.revocation import revoke
from activities.revocation.proof import has_standing_proof
from activities.support.async_tools import run_beside, send_heartbeats, wait_up_to
from justenough.adapters.store import SessionClaim
from justenough.adapters.targets.postgres import TargetInspection
from justenough.domain.approvals.statements import MAX_STATEMENT_LIFETIME
from justenough.domain.contracts.workflow_messages import SignedSweepReport, SweepReport
from justenough.domain.core.errors import RetryLater
from justenough.domain.jobs.states import JobState, RequestState, Revocable, RevocationState
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, Event, EventType, build_event
from justenough.domain.ledger.overdue import SECOND_CHECK_PENDING
from justenough.domain.readmodel.views import JobSummary
from justenough.services.dependencies import Deps
from justenough.services.job_history import requested_stop
from justenough.services.signed_reports import sign_report
from justenough.services.target_checks import target_checks

MIN_JOB_AGE = timedelta(seconds=10)
"""The sweep ignores younger jobs."""
CLAIM_LEASE = timedelta(seconds=30)
"""A session whose lease was not renewed for this long counts as dead."""
UNSTARTED_TIMEOUT = MAX_STATEMENT_LIFETIME
"""How long the console may take to start the workflow of an accepted job: Temporal may have been down. Then the job's order has expired."""
TASK_START_TIMEOUT = timedelta(seconds=5)
"""How long a revocation's task may wait for a worker before the sweep also revokes."""
ATTEMPT_TIMEOUT = timedelta(seconds=25)
"""A worker that revokes begins an attempt at least this often."""
RPC_TIMEOUT = timedelta(seconds=5)
MAX_IDLE = timedelta(seconds=13)
"""If no worker has swept for this long, one does by its own clock. Longer than the schedule's interval."""
CLOCK_INTERVAL_S = 2.0, 3.0
"""Seconds between two checks of that clock, random so that workers do not check at the same moment."""
RENEWAL_INTERVAL = timedelta(seconds=4)
"""How often a sweep records that it is still running."""
MAX_CONCURRENT_JOBS = 8
SWEEP_BUDGET_S = 35.0
"""Seconds after which a sweep begins with no further job; with JOB_TIMEOUT_S added, it ends within its activity's minute."""
SWEEP_TIMEOUT_S = 60.0
"""Seconds after which a hanging sweep is abandoned, so that another can begin."""
JOB_TIMEOUT_S = 20.0
"""Seconds for one job's attempt, so that one stuck target does not block the rest."""
MAX_RECORDED_AT_ONCE = 1_000
"""Maximum number of unknown jobs that are recorded in one transaction: meanwhile nobody else can write."""
MAX_REPORTED, MAX_FAILURE_BYTES = 1_000, 400_000
"""Maximum number of jobs of each kind, and of failures and their bytes, in a report: a result has it twice, once signed, and must fit
into a payload (2 MB).
"""
REAPER_TIMEOUT_S = 5.0
"""Seconds for the check whether users can be ended at each target. It runs beside the rest of the sweep."""
LEFT_TIMEOUT_S = 4.0
"""Seconds for finding out, at the end of a sweep, who could not be ended."""
SWEEP_POOL = ThreadPoolExecutor(MAX_CONCURRENT_JOBS, thread_name_prefix="sweep")
"""Separate threads: an attempt that timed out keeps its thread, and sessions must not wait for it."""

log = structlog.get_logger()

SweepVerdict = tuple[str, str, str]
"""The outcome for a job (revoked, lost, unknown, failed, or waiting for the next sweep), its id, and the reason."""


class SweepActivities:
    """Lists what is alive, asks Temporal about each job by name, and makes one bounded attempt per job."""

    def __init__(self, deps: Deps, temporal: Client) -> None:
        self._deps = deps
        self._temporal = temporal
        self._stuck: frozenset[str] = frozenset()
        """Jobs that could not be revoked last time; they come after all others."""
        self._steady_since = deps.now()
        """Since when the store has accepted writes, as far as sweeps can see.

        Before that, a session could not renew its lease although it was alive.
        """
        self._sweep: asyncio.Task[SweepReport] | None = None
        """The sweep that this worker runs, or its last one."""

    @activity.defn(name="sweep")
    async def sweep(self, nonce: str = "") -> SignedSweepReport:
        """Run a sweep, or join the one that this worker runs, and return its report. With a nonce, sign it.

        It sends heartbeats, so that after its worker's death the next sweep starts soon.
        """
        async with send_heartbeats():
            if self._sweep is None or self._sweep.done():
                await asyncio.to_thread(lambda: self._deps.store.sweeps.begin(now=self._deps.now(), by_clock=False))
            report = await asyncio.shield(self._start())
            signed = await asyncio.to_thread(sign_report, self._deps, report, nonce=nonce)
            return SignedSweepReport(signed=signed, **dict(report))

    async def sweep_by_clock(self, ended: asyncio.Event) -> None:
        """Start a sweep whenever no worker has swept for MAX_IDLE, until the event is set."""
        sweeps = self._deps.store.sweeps
        while not ended.is_set():
            await wait_up_to(timedelta(seconds=secrets.SystemRandom().uniform(*CLOCK_INTERVAL_S)), ended)
            try:
                if await asyncio.to_thread(lambda: sweeps.begin_if_idle(now=self._deps.now(), idle=MAX_IDLE)):
                    log.warning("sweeping by this worker's clock: none came through Temporal", idle=MAX_IDLE.total_seconds())
                    _ = self._start()
            except Exception as error:  # noqa: BLE001 - whatever is the matter now, the next look must come
                log.warning("this worker cannot sweep by its own clock now", error=type(error).__name__)

    def _start(self) -> asyncio.Task[SweepReport]:
        """Return the sweep that is running; start one if there is none. A caller that stops waiting does not end it."""
        if self._sweep is None or self._sweep.done():
            self._sweep = asyncio.create_task(asyncio.wait_for(self.run(), SWEEP_TIMEOUT_S))

            def log_failure(sweep: asyncio.Task[SweepReport]) -> None:
                if not sweep.cancelled() and (error := sweep.exception()):
                    log.warning("the sweep failed; the next one begins within seconds", error=type(error).__name__)

            self._sweep.add_done_callback(log_failure)
        return self._sweep

    async def run(self) -> SweepReport:
        """Run a sweep, record its progress and its end, and return its report."""
        sweeps = self._deps.store.sweeps

        async def record_progress(ended: asyncio.Event) -> None:
            await wait_up_to(RENEWAL_INTERVAL, ended)
            while not ended.is_set():
                try:
                    await asyncio.to_thread(lambda: sweeps.renew(now=self._deps.now()))
                except RetryLater as error:
                    log.warning("the sweep's progress cannot be recorded", error=type(error).__name__)
                await wait_up_to(RENEWAL_INTERVAL, ended)

        async with run_beside(record_progress):
            # Beside the listing: a target that hangs must not delay the ends of jobs in others.
            unready = asyncio.create_task(asyncio.to_thread(self._deps.targets.check_reapers, timeout_s=REAPER_TIMEOUT_S))
            if last := await asyncio.to_thread(sweeps.last):
                self._steady_since = last.steady_since
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
            report = build_report(verdicts, inspection.failures, looked_at=len(checked), at=self._deps.now())
            await self._record_unknown([job for what, job, _ in verdicts if what == "unknown"])
            if self._deps.config.digest_in_force is not None:
                await self._record_targets(inspection, await unready, traced)
            # If the ledger fails now, the next sweep finds these credentials again.
            await asyncio.to_thread(revoke.record_lapsed, self._deps)
        await asyncio.to_thread(lambda: sweeps.end(now=self._deps.now()))
        return report

    async def _record_unknown(self, jobs: Sequence[str]) -> None:
        """Record one event per unknown job: a set would be reported again whenever one job is added or removed."""
        unknown = [build_event(EventType.SWEEP_REPORTED, UNATTRIBUTED_CHAIN, at=self._deps.now(), about=job, unknown=[job]) for job in jobs]
        for start in range(0, len(unknown), MAX_RECORDED_AT_ONCE):
            await asyncio.to_thread(self._deps.store.ledger.append, unknown[start : start + MAX_RECORDED_AT_ONCE])

    async def _record_targets(self, inspection: TargetInspection, unready: Sequence[str], jobs: AbstractSet[str]) -> None:
        """Record the check of each target. `unready`: failures of reapers; `jobs`: those of which something was found in the targets."""
        failures = (*await self._why_alive(jobs), *unready)
        actions = await asyncio.to_thread(self._deps.targets.actions_by_target)
        checks = target_checks(inspection, at=self._deps.now(), failures=failures, actions=actions)
        await asyncio.to_thread(self._deps.store.targets.record, checks)

    async def _why_alive(self, jobs: AbstractSet[str]) -> tuple[str, ...]:
        """Return a failure for each target in which users of these jobs are alive although they should be dead and attempts to end them failed."""
        views = await asyncio.to_thread(self._deps.store.jobs.by_ids, sorted(jobs)) if jobs else ()
        due = {view.id for view in views if view.state.ended or view.revocation.state is RevocationState.OVERDUE}
        if not due:
            return ()
        try:
            return await asyncio.wait_for(asyncio.to_thread(self._deps.targets.why_alive, due), LEFT_TIMEOUT_S)
        except TimeoutError:
            log.warning("who could not be ended in the targets is not known", timeout=LEFT_TIMEOUT_S)
            return ()

    async def _check_in_time(self, gate: asyncio.Semaphore, job: str, end: float) -> SweepVerdict | None:
        """Check one job and return the verdict; None if there is nothing to report. A failure, or an exhausted budget, becomes a verdict
        too.
        """
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
        # Do not read the job's requests and credentials: an agent that runs for days may have thousands, and every sweep checks it.
        view = next(iter(await asyncio.to_thread(self._deps.store.jobs.by_ids, [job])), None)
        if view is None:
            return "unknown", job, ""
        if view.state.ended:
            return await self._revoke_leftover(job, view, "left over after the job's end")
        execution: WorkflowExecutionDescription | None = None
        try:
            execution = await self._temporal.get_workflow_handle(job).describe(rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:
                raise
        if await self._is_closed(job, view, execution):
            return await self._close_lost(job, view)
        claim = await self._read_claim(job) if execution else None
        if execution and claim and claim.owner is None and await self._requested_stop(job) is JobState.KILLED:
            await self._signal_kill(job)
        if execution and claim and not self._is_attended(claim, execution):
            return await self._revoke_leftover(job, view, "its session is gone, and no worker is revoking")
        return await self._revoke_requested(job)

    async def _signal_kill(self, job: str) -> None:
        """Signal a kill to a job without a session, which could learn of it from the store: the console could not if Temporal was down."""
        try:
            await self._temporal.get_workflow_handle(job).signal("kill", rpc_timeout=RPC_TIMEOUT)
        except RPCError as error:
            # This must not keep the sweep from revoking. The next sweep tries again.
            log.warning("a kill cannot be signalled", job=job, error=error.status.name.lower())

    async def _revoke_leftover(self, job: str, view: JobSummary, why: str) -> SweepVerdict | None:
        if view.revocation.state.is_settled and not await asyncio.to_thread(self._has_traces, job):
            # Only its token role can be left, if a worker that was suspended wrote it after the job's end.
            await asyncio.to_thread(self._deps.vault.close_prefix, job)
            return None
        if view.revocation.state.is_settled and await asyncio.to_thread(self._has_only_empty_roles, job):
            # Its access was found dead, and is: without this look, each sweep would record that again until the roles can be dropped.
            ended = await asyncio.to_thread(self._deps.targets.end_all_of, job)
            are_left = await asyncio.to_thread(self._has_only_empty_roles, job)
            if ended.failures or are_left:
                return "waiting", job, "nothing can use its access, but a lock keeps an empty role of it from being dropped"
            # A proof of its own: the record says when the access was found dead, and when the roles were gone.
            revoke_again = partial(revoke.revoke, self._deps, job, by="sweep", why="its empty roles were dropped", settled=True)
            result = await asyncio.get_running_loop().run_in_executor(SWEEP_POOL, revoke_again)
        else:
            result = await self._revoke(job, why)
        return ("revoked", job, "") if result.confirmed else _retry_verdict(job, result)

    async def _revoke_requested(self, job: str) -> SweepVerdict | None:
        """Revoke the running job's credentials that people revoked or whose approval they withdrew, if no worker has. Return the verdict,
        if any.
        """
        store, due, failures = self._deps.store, self._deps.now() - TASK_START_TIMEOUT, list[str]()
        known = await asyncio.to_thread(store.credentials.live_of, job)
        live = [item for item in known if item.lease_id and item.revocable == Revocable.NOW and not item.state.is_settled]
        if not live:
            return None
        requests = await asyncio.to_thread(store.requests.by_ids, [item.request_id for item in live])
        withdrawn = {request.id for request in requests.values() if request.state is RequestState.WITHDRAWN}
        asking = (EventType.REVOCATION_REQUESTED,)
        # In most jobs nobody has requested a revocation, and a job may have many credentials.
        any_asked = await asyncio.to_thread(store.ledger.ids, job, asking)
        for item in live:
            asked = await asyncio.to_thread(store.ledger.entries_about, job, asking, item.id) if any_asked else ()
            if item.request_id in withdrawn or any(entry.at < due for entry in asked):
                revoke_one = partial(revoke.revoke_one, self._deps, job, item.id, by="person", why="its revocation was requested")
                failures += (await asyncio.get_running_loop().run_in_executor(SWEEP_POOL, revoke_one)).failures
        return ("failed", job, "; ".join(failures)) if failures else None

    async def _close_lost(self, job: str, view: JobSummary) -> SweepVerdict:
        unrecorded: tuple[Event, ...] = ()
        # A session that learned of its workflow's end has recorded its proof already.
        if not view.revocation.state.is_proven or await asyncio.to_thread(self._has_traces, job):
            result = await self._revoke(job, "its workflow is gone")
            if not result.confirmed:
                return _retry_verdict(job, result)
            unrecorded = result.events
        stop = await self._requested_stop(job)
        state, why = (stop, None) if stop else (JobState.LOST, "its workflow closed without a result")
        ended = build_event(EventType.JOB_ENDED, job, at=self._deps.now(), state=state.value, exit_code=None, reason=why)
        await asyncio.to_thread(self._deps.store.ledger.append, [*unrecorded, ended])
        return "lost", job, ""

    async def _requested_stop(self, job: str) -> JobState | None:
        return await asyncio.to_thread(requested_stop, self._deps.store.ledger, job)

    async def _revoke(self, job: str, why: str) -> revoke.RevocationResult:
        def attempt() -> revoke.RevocationResult:
            # This job may have waited a while for a thread. If another revocation has recorded its proof meanwhile, another attempt would put
            # the job in doubt again.
            if has_standing_proof(self._deps, job) and not self._deps.targets.traces_of(job):
                return revoke.RevocationResult(confirmed=True)
            return revoke.revoke(self._deps, job, by="sweep", why=why, settled=False)

        return await asyncio.get_running_loop().run_in_executor(SWEEP_POOL, attempt)

    async def _is_closed(self, job: str, view: JobSummary, execution: WorkflowExecutionDescription | None) -> bool:
        """Whether there is evidence that the job's workflow will never run again."""
        if execution is None:
            claim = await self._read_claim(job)
            if claim is not None:
                return not claim.open or self._deps.now() - claim.renewed_at > CLAIM_LEASE
            # A job whose requests were decided had a workflow, and the console does not start it a second time.
            requests = await asyncio.to_thread(lambda: self._deps.store.requests.list(job=job, limit=1).items)
            return self._deps.now() - view.created_at > (CLAIM_LEASE if requests else UNSTARTED_TIMEOUT)
        # Another workflow with this id proves nothing about the job.
        ours = (execution.workflow_type, execution.task_queue) == ("Job", self._deps.settings.task_queue)
        return not ours or execution.status is not WorkflowExecutionStatus.RUNNING

    async def _read_claim(self, job: str) -> SessionClaim | None:
        """Return the job's claim. If it was renewed in the future, count its lease from now on: the clock of the session's worker was wrong, and
        if the session is dead, nobody would notice until then. If it lives, it renews again within seconds.
        """
        claims, now = self._deps.store.claims, self._deps.now()
        claim = await asyncio.to_thread(claims.get, job)
        if claim and claim.owner and claim.open and claim.renewed_at > now + CLAIM_LEASE:
            await asyncio.to_thread(claims.renew, job, claim.owner, now)
        return claim

    def _is_attended(self, claim: SessionClaim, execution: WorkflowExecutionDescription) -> bool:
        """Whether a worker deals with the job's access: its session, or a revocation.

        What Temporal reports alone never counts for longer than what workers have written to the store: a stranger may have taken the task,
        may send heartbeats for a dead session, or may run another workflow under the job's id.
        """
        now, is_its_run = self._deps.now(), execution.run_id == claim.run
        tasks = [item for item in execution.raw_description.pending_activities if is_its_run]
        revocations = [item for item in tasks if item.activity_type.name == "revoke_job"]
        if claim.open:
            # No worker has begun to revoke, which would close the claim. A worker may be about to, or the session may be about to learn that its run is closed.
            begun = [item.scheduled_time.ToDatetime(UTC) for item in revocations] if is_its_run else [execution.start_time]
            may_begin = all(now - at < TASK_START_TIMEOUT for at in begun) and all(item.attempt <= 1 for item in revocations)
            return may_begin and now - max(claim.renewed_at, self._steady_since) <= CLAIM_LEASE
        waits = PendingActivityState.PENDING_ACTIVITY_STATE_SCHEDULED
        expected = [*revocations, *(item for item in tasks if item.activity_type.name == "run_session" and item.state != waits)]
        # A time in the future comes from a wrong clock. A second attempt beside a running one does no harm.
        return bool(expected) and abs(now - max(filter(None, (claim.closed_at, claim.attempted_at)))) < ATTEMPT_TIMEOUT

    def _has_only_empty_roles(self, job: str) -> bool:
        """Whether all that is left of a job is roles that nobody can use."""
        seen = self._deps.targets.inspect(job)
        return bool(seen.empty_roles) and not (seen.users or seen.spaces or seen.failures or self._deps.vault.prefix_accessors(job))

    def _has_traces(self, job: str) -> bool:
        return bool(self._deps.vault.prefix_accessors(job)) or bool(self._deps.targets.traces_of(job))


def build_report(verdicts: Sequence[SweepVerdict], failures: Sequence[str], *, looked_at: int, at: datetime) -> SweepReport:
    """Return the report of a sweep, short enough for its payload. `failures`: those of the targets' inspection."""
    jobs = {kind: tuple(job for what, job, _ in verdicts if what == kind) for kind in ("revoked", "lost", "unknown")}
    listed = {kind: found[:MAX_REPORTED] for kind, found in jobs.items()}
    unlisted = sum(len(found) - len(listed[kind]) for kind, found in jobs.items())
    every_failure = [*failures, *(f"{job}: {why}" for what, job, why in verdicts if what in {"failed", "waiting"})]
    fit = min(MAX_REPORTED, bisect_right(list(accumulate(len(text.encode()) for text in every_failure)), MAX_FAILURE_BYTES))
    more = [f"{len(every_failure) - fit:,} more"] if len(every_failure) > fit else []
    return SweepReport(looked_at=looked_at, failures=(*every_failure[:fit], *more), unlisted=unlisted, at=at, **listed)


def _retry_verdict(job: str, result: revoke.RevocationResult) -> SweepVerdict:
    return ("failed", job, "; ".join(result.failures)) if result.failures else ("waiting", job, SECOND_CHECK_PENDING)


def _rotate(jobs: AbstractSet[str]) -> list[str]:
    """Return the jobs in sorted order from a random start, so that each job comes first sometimes."""
    start = secrets.choice(sorted(jobs)) if jobs else ""
    return sorted(jobs, key=lambda job: (job < start, job))
