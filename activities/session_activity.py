"""run_session: the one activity that owns everything alive while a job runs, and revokes it, whatever ends the session.

It runs once per job id, trusts no argument, and returns only when its own revocation has been tried.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator

import structlog
from temporalio import activity
from temporalio.common import RawValue

from activities.process.sandbox import Sandbox
from activities.session.session import JobSession, Stop
from activities.support.async_tools import run_despite_cancel, send_heartbeats
from activities.support.caller_check import decode_argument, refused_event, why_not_job_workflow
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.contracts.workflow_messages import SessionInput, SessionResult
from justenough.domain.core.rejection import Rejection
from justenough.domain.jobs.spec import JobSpec, at_start
from justenough.domain.jobs.states import JobState
from justenough.services.dependencies import Deps
from justenough.services.job_history import read_job_history
from justenough.services.ledger_events import order_events
from justenough.services.verify_order import VerifiedOrder, verify_order

CLAIM_RENEWAL_INTERVAL_S = 10.0
"""Seconds between two renewals of the claim's lease. The sweep considers a session gone after 60."""
log = structlog.get_logger()


class SessionActivities:
    """The sessions of one worker."""

    def __init__(self, deps: Deps, sandbox: Sandbox) -> None:
        self._deps = deps
        self._sandbox = sandbox

    @activity.defn(name="run_session")
    async def receive(self, argument: RawValue) -> SessionResult:
        """Run a session if the argument is an order. Anything may be sent here, and each attempt is recorded."""
        order = decode_argument(argument, SessionInput)
        if not isinstance(order, SessionInput):
            return await self._refuse(str(activity.info().workflow_id), "the argument is not an order")
        return await self.run_session(order)

    @activity.defn(name="run_session")
    async def run_session(self, order: SessionInput) -> SessionResult:
        """Verify, claim, issue, run, revoke, confirm. Runs once per job: any other run or attempt is refused and issues nothing."""
        owner, run = uuid.uuid4().hex, str(activity.info().workflow_run_id)
        verified = await asyncio.to_thread(self._verify, order)
        if isinstance(verified, Rejection):
            return await self._refuse(order.order.job, verified.message)
        past = await asyncio.to_thread(read_job_history, self._deps.store.ledger, order.order.job)
        if past.why_over:
            return await self._refuse(order.order.job, past.why_over)
        if not await asyncio.to_thread(self._deps.store.claims.claim, order.order.job, run=run, owner=owner, now=self._deps.now()):
            # A reset or a second start is an ending, never a second execution. This run cannot vouch for what the first one holds.
            return await self._refuse(order.order.job, "this job ran already, or has ended; a reset runs nothing again")
        if not past.submitted:
            # A session may be reached past the console and the workflow. What it does is recorded anyway.
            await asyncio.to_thread(self._deps.store.ledger.append, order_events(self._deps, order.order, verified))
        handle = activity.client().get_workflow_handle(order.order.job, run_id=run)
        session = JobSession(
            self._deps,
            self._sandbox,
            order,
            verified,
            past,
            owner=owner,
            run=run,
            notify_workflow=lambda request: handle.signal("ask", request),
        )
        async with self._keep_alive(session, order.order.job, owner):
            # The session obeys a cancel in its own order, however often it comes.
            return await run_despite_cancel(session.run(), on_cancel=lambda: session.stop(_stop_reason()))

    def _verify(self, order: SessionInput) -> VerifiedOrder | Rejection:
        if why := why_not_job_workflow(order.order.job):
            return Rejection("not_the_job_workflow", why)
        verified = verify_order(self._deps, order.order, now=self._deps.now())
        if isinstance(verified, Rejection):
            return verified
        problems = problems_in_spec(verified.spec, self._deps.config.current().catalog)
        why = "; ".join(map(str, problems)) or _why_wrong_requests([item.number for item in order.granted], verified.spec)
        return Rejection("requests_invalid", why) if why else verified

    async def _refuse(self, job: str, why: str) -> SessionResult:
        log.warning("session refused", job=job, workflow=activity.info().workflow_id, why=why)
        await asyncio.to_thread(self._deps.store.ledger.append, [refused_event(job, why, at=self._deps.now())])
        return SessionResult(outcome=JobState.FAILED, reason=f"refused: {why}", clean=await asyncio.to_thread(self._is_untouched, job))

    def _is_untouched(self, job: str) -> bool:
        """Whether Vault can hold nothing of a job: no session had the right to issue, and nothing waits there for people."""
        view = self._deps.store.jobs.get(job)
        waited = view is not None and any(request.lock for request in view.requests)
        return self._deps.store.claims.get(job) is None and not waited

    @contextlib.asynccontextmanager
    async def _keep_alive(self, session: JobSession, job: str, owner: str) -> AsyncIterator[None]:
        """Send heartbeats to Temporal and renew the claim in the store; stop the session if its claim was closed."""

        async def renew() -> None:
            # Making the claim, a moment ago, was the first renewal.
            while True:
                await asyncio.sleep(CLAIM_RENEWAL_INTERVAL_S)
                try:
                    is_ours = await asyncio.to_thread(self._deps.store.claims.renew, job, owner, self._deps.now())
                except Exception as error:  # noqa: BLE001 - a store that is away must not end a healthy job; its lease has slack
                    log.warning("claim not renewed", job=job, error=type(error).__name__)
                    continue
                if not is_ours:
                    session.stop(Stop.CUT)

        # Apart from each other: a store that hangs must not stop the heartbeats, or the session would be taken for dead.
        async with send_heartbeats():
            renewing = asyncio.create_task(renew())
            try:
                yield
            finally:
                renewing.cancel()


def _why_wrong_requests(numbers: list[int], spec: JobSpec) -> str:
    """Return what is wrong with the requests that are said to be granted, or "". A job does not run without every request that is not optional."""
    known = dict(at_start(spec))
    if len(set(numbers)) != len(numbers) or not set(numbers) <= set(known):
        return "it names requests that the order does not have at its start"
    if not {number for number, access in known.items() if not access.optional} <= set(numbers):
        return "it leaves out requests without which the job does not run"
    return ""


def _stop_reason() -> Stop:
    details = activity.cancellation_details()
    if details is None or details.worker_shutdown:
        return Stop.WORKER
    if details.not_found or details.timed_out:
        return Stop.GONE
    return Stop.CANCEL
