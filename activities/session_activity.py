"""run_session: the one activity that owns what is alive while a job runs, and ends it, whatever ends the session.

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

from activities.broker.broker import NotifyWorkflow
from activities.process.sandbox import Sandbox
from activities.session.session import JobSession, Stop
from activities.support.async_tools import run_despite_cancel, send_heartbeats
from activities.support.caller_check import decode_argument, refused_event, why_not_job_workflow
from justenough.domain.approvals.verification import Rejection
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.contracts.workflow_messages import SessionInput, SessionResult
from justenough.domain.jobs.spec import JobSpec, at_start
from justenough.domain.jobs.states import JobState
from justenough.services.dependencies import Deps
from justenough.services.job_history import read_job_history
from justenough.services.ledger_events import order_events
from justenough.services.verify_order import VerifiedOrder, verify_order

CLAIM_RENEWAL_INTERVAL_S = 10.0
"""Seconds between two renewals of the claim's lease; the sweep takes a session for gone after 60."""
log = structlog.get_logger()


class SessionActivities:
    """The sessions of one worker."""

    def __init__(self, deps: Deps, sandbox: Sandbox) -> None:
        self._deps = deps
        self._sandbox = sandbox

    @activity.defn(name="run_session")
    async def receive(self, argument: RawValue) -> SessionResult:
        """Run a session, if that is what is asked for; anything may come, and each attempt is recorded."""
        order = decode_argument(argument, SessionInput)
        if not isinstance(order, SessionInput):
            return await self._refuse(str(activity.info().workflow_id), "what was sent is not an order")
        return await self.run_session(order)

    @activity.defn(name="run_session")
    async def run_session(self, order: SessionInput) -> SessionResult:
        """Verify, claim, issue, run, revoke, confirm. Once: any other run or attempt is refused and issues nothing."""
        owner, run = uuid.uuid4().hex, str(activity.info().workflow_run_id)
        verified = await asyncio.to_thread(self._verify, order)
        if isinstance(verified, Rejection):
            return await self._refuse(order.order.job, verified.why)
        past = await asyncio.to_thread(read_job_history, self._deps.store.ledger, order.order.job)
        if past.why_over:
            return await self._refuse(order.order.job, past.why_over)
        if not await asyncio.to_thread(self._deps.store.claims.claim, order.order.job, run=run, owner=owner, now=self._deps.now()):
            # A reset or a second start is an ending, never a second execution. What the first one holds is not ours to vouch for.
            return await self._refuse(order.order.job, "this job ran already, or has ended; a reset runs nothing again")
        if not past.submitted:
            # A session may be reached past the console and the workflow; what it does is recorded all the same.
            await asyncio.to_thread(self._deps.store.ledger.append, order_events(self._deps, order.order, verified))
        life = JobSession(
            self._deps, self._sandbox, order, verified, past, owner=owner, run=run, notify_workflow=_build_notifier(order.order.job, run)
        )
        async with self._keep_alive(life, order.order.job, owner):
            # A cancel is a wish that the life obeys in its own order, however often it comes.
            return await run_despite_cancel(life.run(), on_cancel=lambda: life.stop(_stop_reason()))

    def _verify(self, order: SessionInput) -> VerifiedOrder | Rejection:
        why = why_not_job_workflow(order.order.job)
        verified = Rejection(why) if why else verify_order(self._deps, order.order, now=self._deps.now())
        if isinstance(verified, Rejection):
            return verified
        problems = problems_in_spec(verified.spec, self._deps.config.current().catalog)
        why = "; ".join(map(str, problems)) or _why_wrong_requests([item.number for item in order.granted], verified.spec)
        return Rejection(why) if why else verified

    async def _refuse(self, job: str, why: str) -> SessionResult:
        log.warning("session refused", job=job, workflow=activity.info().workflow_id, why=why)
        await asyncio.to_thread(self._deps.store.ledger.append, [refused_event(job, why, at=self._deps.now())])
        return SessionResult(outcome=JobState.FAILED, reason=f"refused: {why}", clean=await asyncio.to_thread(self._is_untouched, job))

    def _is_untouched(self, job: str) -> bool:
        """Whether nothing of a job's can be in Vault: no session had the right to issue, and nothing was made to wait there for people."""
        view = self._deps.store.jobs.get(job)
        waited = view is not None and any(request.lock for request in view.requests)
        return self._deps.store.claims.get(job) is None and not waited

    @contextlib.asynccontextmanager
    async def _keep_alive(self, session: JobSession, job: str, owner: str) -> AsyncIterator[None]:
        """Tell Temporal each second and the store every ten that this session lives; stop it where its claim was closed."""

        async def renew() -> None:
            # The claim, which was made a moment ago, is the first renewal.
            while True:
                await asyncio.sleep(CLAIM_RENEWAL_INTERVAL_S)
                await self._renew(session, job, owner)

        # Each on its own: a store that hangs must not silence the heartbeat, for its silence is a death.
        async with send_heartbeats():
            renewing = asyncio.create_task(renew())
            try:
                yield
            finally:
                renewing.cancel()

    async def _renew(self, session: JobSession, job: str, owner: str) -> None:
        try:
            still_ours = await asyncio.to_thread(self._deps.store.claims.renew, job, owner, self._deps.now())
        except Exception as error:  # noqa: BLE001 - a store that is away must not end a healthy job; its lease has slack
            log.warning("claim not renewed", job=job, error=type(error).__name__)
            return
        if not still_ours:
            session.stop(Stop.CUT)


def _why_wrong_requests(numbers: list[int], spec: JobSpec) -> str:
    """Return what is wrong with the requests that are said to be granted: without one that is not optional a job does not run."""
    known = dict(at_start(spec))
    if len(set(numbers)) != len(numbers) or not set(numbers) <= set(known):
        return "it names requests that the order does not have at its start"
    if not {number for number, access in known.items() if not access.optional} <= set(numbers):
        return "it leaves out requests without which the job does not run"
    return ""


def _build_notifier(job: str, run: str) -> NotifyWorkflow:
    """Return what has the job's own run of its workflow ask people for a request."""
    handle = activity.client().get_workflow_handle(job, run_id=run)

    async def tell(request: str) -> None:
        await handle.signal("ask", request)

    return tell


def _stop_reason() -> Stop:
    details = activity.cancellation_details()
    if details is None or details.worker_shutdown:
        return Stop.WORKER
    if details.not_found or details.timed_out:
        return Stop.GONE
    return Stop.CANCEL
