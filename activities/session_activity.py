"""run_session: the activity that runs a job and revokes its access, however the session ends.

It runs once per job id, trusts no argument, and returns only after it has tried to revoke.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress

import structlog
from temporalio import activity
from temporalio.common import RawValue

from activities.process.sandbox import Sandbox
from activities.session.dead_sessions import hold_session_lock
from activities.session.people_requests import RequestWatch
from activities.session.session import JobSession, Stop
from activities.support.async_tools import run_despite_cancel, run_until_block_ends, send_heartbeats
from activities.support.caller_check import refused_event, why_not_job_workflow
from justenough.adapters.store import ClaimResult
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.contracts.workflow_messages import SessionInput, SessionResult
from justenough.domain.core.errors import RetryLater
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.result_reasons import ResultReason
from justenough.domain.jobs.spec import at_start
from justenough.domain.jobs.states import JobState
from justenough.services.dependencies import Deps
from justenough.services.job_history import ALREADY_RAN, JobHistory, read_job_history, requested_stop
from justenough.services.ledger_events import order_events
from justenough.services.verify_order import VerifiedOrder, verify_order

CLAIM_RENEWAL_INTERVAL_S = 5.0
"""Seconds between two renewals of the claim's lease. The sweep considers a session dead after 30 (`CLAIM_LEASE`)."""
PATIENCE_S = 5.0
"""Seconds that an unclaimed job waits at this worker for Vault and the store. Then another worker can take it, which may reach them."""
RETRY_INTERVAL_S = 1.0
log = structlog.get_logger()


class SessionActivities:
    def __init__(self, deps: Deps, sandbox: Sandbox) -> None:
        self._deps = deps
        self._sandbox = sandbox
        self._requests = RequestWatch(deps.store)

    @activity.defn(name="run_session")
    async def receive(self, argument: RawValue) -> SessionResult:
        """Run a session if the argument is an order. Anyone may send anything here, and each attempt is recorded."""
        order: object = None
        with suppress(Exception):  # Anybody may send any bytes, which may raise anything.
            order = activity.payload_converter().from_payload(argument.payload, SessionInput)
        # From the first step on: the store may take longer than Temporal waits for a silent worker.
        async with send_heartbeats():
            if not isinstance(order, SessionInput):
                return await self._refuse(str(activity.info().workflow_id), "the argument is not an order")
            return await self.run_session(order)

    @activity.defn(name="run_session")
    async def run_session(self, order: SessionInput) -> SessionResult:
        """Verify, claim, issue, run, revoke, confirm. Runs once per job: any other run or attempt is refused and issues nothing."""
        owner, stops = uuid.uuid4().hex, list[Stop]()
        # A cancel only asks the session to stop; the session still revokes before it returns.
        session = await run_despite_cancel(self._open_session(order, owner), on_cancel=lambda: stops.append(_stop_reason()))
        if isinstance(session, SessionResult):
            return session
        for why in stops:
            session.stop(why)
        with hold_session_lock(self._deps.settings, order.order.job):
            # In a separate task: a store that hangs must not stop the session.
            renewing = run_until_block_ends(self._renew_claim(session, order.order.job, owner))
            async with renewing, self._requests.watch(order.order.job, session.receive):
                return await run_despite_cancel(session.run(), on_cancel=lambda: session.stop(_stop_reason()))

    async def _open_session(self, order: SessionInput, owner: str) -> JobSession | SessionResult:
        """Claim the job for a session; return the session, or the result if there is none."""
        run = str(activity.info().workflow_run_id)
        found = await self._verify_once_servers_answer(order)
        if found is None:
            log.warning("job waits until Vault and the store answer", job=order.order.job)
            return SessionResult(outcome=JobState.FAILED, reason=ResultReason.SERVERS_UNAVAILABLE, no_place=True)
        if isinstance(found, Rejection):
            return await self._refuse(order.order.job, found.message)
        verified, past = found
        if past.stop:
            # The workflow may not know of the stop: the signal is slower than the ledger, or somebody started the workflow again without it.
            return SessionResult(outcome=past.stop, stopped=True)
        launcher, places = verified.launcher, self._deps.settings.places
        claimed = await asyncio.to_thread(
            self._deps.store.claims.claim,
            order.order.job,
            run=run,
            owner=owner,
            launcher=launcher,
            places=places,
            now=self._deps.now(),
        )
        if claimed is not ClaimResult.CLAIMED:
            return await self._end_unclaimed(order.order.job, claimed, launcher=launcher)
        if not past.submitted:
            # Somebody may start a session without the console and the workflow. Its order is recorded anyway.
            await asyncio.to_thread(self._deps.store.ledger.append, order_events(self._deps, order.order, verified))
        handle = activity.client().get_workflow_handle(order.order.job, run_id=run)
        return JobSession(
            self._deps,
            self._sandbox,
            order,
            verified,
            past,
            owner=owner,
            run=run,
            notify_workflow=lambda request: handle.signal("ask", request),
        )

    async def _end_unclaimed(self, job: str, claimed: ClaimResult, *, launcher: str) -> SessionResult:
        """Return the result of a session that could not claim its job."""
        if claimed is ClaimResult.NO_PLACE:
            log.info("job waits for a place", job=job, launcher=launcher, places=self._deps.settings.places)
            clean = await asyncio.to_thread(self._is_untouched, job)
            return SessionResult(outcome=JobState.FAILED, reason=ResultReason.NO_PLACE, no_place=True, clean=clean)
        claim = await asyncio.to_thread(self._deps.store.claims.get, job)
        is_unclaimed = claim is not None and claim.owner is None
        stop = await asyncio.to_thread(requested_stop, self._deps.store.ledger, job) if is_unclaimed else None
        if stop is not None:
            # Somebody stopped the job after this session had read its history.
            return SessionResult(outcome=stop, stopped=True)
        # A reset or a second start ends the job; it never runs it again. This run does not know what the first one holds.
        return await self._refuse(job, ALREADY_RAN)

    async def _verify_once_servers_answer(self, order: SessionInput) -> tuple[VerifiedOrder, JobHistory] | Rejection | None:
        """Return what `_verify` returns; None if Vault or the store does not answer for PATIENCE_S, or the job is stopped meanwhile."""
        end = self._deps.ticks() + PATIENCE_S
        while True:
            try:
                return await asyncio.to_thread(self._verify, order)
            except RetryLater as error:
                log.warning("order not verified yet", job=order.order.job, error=str(error))
            if activity.is_cancelled() or self._deps.ticks() > end:
                return None
            await asyncio.sleep(RETRY_INTERVAL_S)

    def _verify(self, order: SessionInput) -> tuple[VerifiedOrder, JobHistory] | Rejection:
        """Return the verified order, and the job's history, if it may run now."""
        if why := why_not_job_workflow(order.order.job):
            return Rejection("not_the_job_workflow", why)
        verified = verify_order(self._deps, order.order, now=self._deps.now())
        if isinstance(verified, Rejection):
            return verified
        why = "; ".join(map(str, problems_in_spec(verified.spec, self._deps.config.current().catalog)))
        numbers, start = [item.number for item in order.granted], dict(at_start(verified.spec))
        if not why and (len(set(numbers)) != len(numbers) or not set(numbers) <= set(start)):
            why = "it contains requests that are not start requests of the order"
        if not why and not {number for number, access in start.items() if not access.optional} <= set(numbers):
            why = "it omits requests that the job requires at its start"
        if why:
            return Rejection("requests_invalid", why)
        past = read_job_history(self._deps.store.ledger, order.order.job)
        return Rejection("job_over", past.why_over) if past.why_over else (verified, past)

    async def _refuse(self, job: str, why: str) -> SessionResult:
        log.warning("session refused", job=job, workflow=activity.info().workflow_id, why=why)
        await asyncio.to_thread(self._deps.store.ledger.append, [refused_event(job, why, at=self._deps.now())])
        clean = await asyncio.to_thread(self._is_untouched, job)
        return SessionResult(outcome=JobState.FAILED, reason=f"refused: {why}", clean=clean)

    def _is_untouched(self, job: str) -> bool:
        """Whether Vault can have issued nothing for a job: no session could issue, and no wrapping token waits for people."""
        view, claim = self._deps.store.jobs.get(job), self._deps.store.claims.get(job)
        return claim is None and not (view and any(request.lock for request in view.requests))

    async def _renew_claim(self, session: JobSession, job: str, owner: str) -> None:
        """Renew the claim in the store until cancelled; stop the session if its claim was closed."""
        # The claim was made a moment ago, which counts as the first renewal.
        while True:
            await asyncio.sleep(CLAIM_RENEWAL_INTERVAL_S)
            try:
                is_ours = await asyncio.to_thread(self._deps.store.claims.renew, job, owner, self._deps.now())
            except Exception as error:  # noqa: BLE001 - an unreachable store must not end a healthy job; the lease outlasts several tries
                log.warning("claim not renewed", job=job, error=type(error).__name__)
                continue
            if not is_ours:
                session.stop(Stop.CUT)


def _stop_reason() -> Stop:
    details = activity.cancellation_details()
    if details is None or details.worker_shutdown:
        return Stop.WORKER
    if details.not_found or details.timed_out:
        return Stop.GONE
    return Stop.CANCEL
