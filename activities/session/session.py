"""One session: issue, run, keep leases, end, revoke, prove. Does not know Temporal: session_activity calls `stop`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from enum import StrEnum
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

import structlog

from activities.broker import Broker, ModelGateway, ToolGateway, serve_broker
from activities.broker.broker import NotifyWorkflow
from activities.delivery.delivery import Delivered, access_summary, build_delivery, secret_texts
from activities.issuing.issuer import Issuer
from activities.issuing.lease_keeper import keep_leases
from activities.issuing.results import AccessClosed, IssuedCredential, IssueRefused, NotPermitted, ToolAccess, issued_event
from activities.process.bundles import ensure_unpacked
from activities.process.process import JobProcess
from activities.process.sandbox import Sandbox
from activities.revocation import revoke
from activities.revocation.steps import with_store_timeout
from activities.session.job_runner import JobTask, run_process
from activities.session.people_requests import RequestedRevocations
from activities.support.async_tools import run_until_block_ends, wait_up_to
from justenough.adapters.vault import ConnectionRefused
from justenough.domain.contracts.workflow_messages import SessionInput, SessionResult
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.result_reasons import ResultReason
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import Event, EventType, build_event
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps
from justenough.services.job_history import JobHistory, requested_stop
from justenough.services.verify_order import VerifiedOrder

TERMINATE_GRACE_S = 10.0
"""Seconds between terminating a process and killing it."""
LINGER = timedelta(seconds=1)
"""Time after the end of a job's work until its access is revoked even if something of the session, such as a call, has not ended yet."""
KILL_DELAY = timedelta(seconds=10)
"""Maximum time for which a killed job's process keeps running while its access is revoked."""
RESTART_TIMEOUT_S = 15.0
"""Seconds that a server which refuses connections may take to restart before the job's start fails."""
RESTART_RETRY_INTERVAL = timedelta(seconds=1)
LOG_TIMEOUT_S = 2.0
LOG_WRITER_POOL = ThreadPoolExecutor(4, thread_name_prefix="output")
"""Separate threads for storing output: if they hang in a slow store, issuing and revoking must not wait for them."""
REVOCATION_POOL = ThreadPoolExecutor(64, thread_name_prefix="session-revocation")
"""Separate threads for the same reason: those of issuing, of brokers and of leases may all hang in the store."""
log = structlog.get_logger()

T = TypeVar("T")


class Stop(StrEnum):
    CANCEL = "cancelled"
    KILL = "killed"
    CUT = ResultReason.ACCESS_CUT
    """Its claim was closed: a kill, the guard or the sweep has already revoked its access."""
    GONE = ResultReason.WORKFLOW_GONE
    WORKER = ResultReason.WORKER_STOPPED

    @property
    def is_gentle(self) -> bool:
        """Whether the process is asked to end and keeps its access until then."""
        return self in {Stop.CANCEL, Stop.WORKER}


STOPPED_OUTCOMES = {Stop.CANCEL: JobState.CANCELLED, Stop.KILL: JobState.KILLED}
"""The outcome of a stopped job by reason; any other reason means failure."""


class SessionStopped(Exception):
    """Raised inside the work after `stop` was called."""


def failure_reason(error: JustEnoughError) -> str:
    """Return the reason that a job gets when an error ends its session: the error's recorded name, then its message."""
    name = error.REASON_NAME if isinstance(error, IssueRefused) else type(error).__name__
    return f"{name}: {error}"


class JobSession:
    """One session: however `_work` ends, `run` revokes. If it is killed or ends late, access is revoked before it ends."""

    def __init__(
        self,
        deps: Deps,
        sandbox: Sandbox,
        order: SessionInput,
        verified: VerifiedOrder,
        history: JobHistory,
        *,
        owner: str,
        run: str,
        notify_workflow: NotifyWorkflow,
    ) -> None:
        """`notify_workflow`: makes the job's workflow open the approval of a request."""
        self._deps = deps
        self._sandbox = sandbox
        self._order = order
        self._job = order.order.job
        self._verified = verified
        self._spec = verified.spec
        self._owner = owner
        self._run = run
        self._notify_workflow = notify_workflow
        self._broker: Broker | None = None
        self._model_gateway: ModelGateway | None = None
        self._tools: ToolGateway | None = None
        self._issuer = Issuer(deps, order.order, verified, history, owner=owner)
        self._issued: list[IssuedCredential] = []
        self._stop: Stop | None = None
        self._stop_requested = asyncio.Event()
        self._work_over, self._work_ended = asyncio.Event(), asyncio.Event()
        """Set when nothing needs the job's access any more; and when all of the work has ended, which may take longer."""
        self._revocation_tried = asyncio.Event()
        """Set once an attempt to revoke everything has ended, whatever its result."""
        self._requested_revocations = RequestedRevocations(deps, self._job, self._issuer)
        self._unrecorded: tuple[Event, ...] = ()
        self._batches = 0

    def stop(self, why: Stop) -> None:
        """Make the session end. A reason to end at once overrides a reason to end gently."""
        if self._stop is None or (self._stop.is_gentle and not why.is_gentle):
            self._stop = why
        if not why.is_gentle:
            self._work_over.set()
        # A process that is terminating may still need its credentials, but it gets no new ones.
        if self._broker:
            self._broker.close()
        self._stop_requested.set()

    def receive(self, request: EntryView) -> None:
        """Carry out a person's request about the job, given as its ledger entry. Idempotent."""
        if request.type == EventType.STOP_REQUESTED:
            self.stop(Stop.KILL if request.data.get("how") == "kill" else Stop.CANCEL)
        else:
            self._requested_revocations.add(request)

    async def run(self) -> SessionResult:
        """Work, then revoke. Return the outcome, with the result of the revocation."""
        lingering = asyncio.create_task(self._revoke_before_end())
        try:
            ending = await self._work()
        except SessionStopped:
            ending = self._stopped_outcome(None)
        except NotPermitted as error:
            ending = self._failure_outcome(JobState.DENIED, str(error))
        except JustEnoughError as error:
            ending = self._failure_outcome(JobState.FAILED, failure_reason(error))
        except Exception as error:
            log.exception("session failed unexpectedly", job=self._job)
            ending = self._failure_outcome(JobState.FAILED, f"unexpected {type(error).__name__}")
        self._work_over.set()
        self._work_ended.set()
        await lingering
        # Revoke immediately after the process ended. No issue is in flight: `_work` has returned.
        result = await self._revoke(ending.reason or ending.outcome.value, settled=self._issuer.settled)
        # The outcome is that of the work: a process that ended by itself keeps it, however long revoking takes.
        return ending.model_copy(update={"clean": result.confirmed, "unrecorded": result.events})

    async def _revoke(self, why: str, *, settled: bool) -> revoke.RevocationResult:
        alive = self._issuer.holdings.alive
        revoke_all = partial(
            revoke.revoke,
            self._deps,
            self._job,
            by="session",
            why=why,
            settled=settled,
            known=alive,
            spaces=self._issuer.holdings.spaces,
            # Usually these credentials were recorded when they were issued. If the ledger failed then, record them now.
            before=(
                *self._unrecorded,
                *(issued_event(self._job, credential) for credential in alive),
                *chain.from_iterable(self._issuer.holdings.unrecorded_ends.values()),
                *(self._model_gateway.usage.unrecorded_events() if self._model_gateway else ()),
                *(self._tools.unrecorded_events() if self._tools else ()),
            ),
        )
        result = await asyncio.get_running_loop().run_in_executor(REVOCATION_POOL, revoke_all)
        self._unrecorded = result.events
        return result

    async def _revoke_before_end(self) -> None:
        """Revoke the job's access before its session ends: at once if it is killed, or if part of its work, such as a call to a server that
        hangs, has not ended LINGER after the work was over.
        """
        await self._work_over.wait()
        if self._stop is not Stop.KILL:
            await wait_up_to(LINGER, self._work_ended)
        while not self._work_ended.is_set():
            why = "killed" if self._stop is Stop.KILL else "the job's work is over"
            log.info("access is revoked before the session ends", job=self._job, why=why)
            try:
                await self._revoke(why, settled=False)
            except Exception:
                # The session revokes again when it ends, whatever happens here.
                log.exception("access could not be revoked before the session ends", job=self._job)
            self._revocation_tried.set()
            await wait_up_to(LINGER, self._work_ended)

    async def _work(self) -> SessionResult:
        """Issue, and run the process to its end. Return the outcome, before anything is revoked."""
        delivered = await self._issue_all()
        workdir = await asyncio.to_thread(self._unpack_bundle)
        self._raise_if_stopped()
        # A session that was suspended until after its end, or whose stop is recorded, must not start a process.
        claim = await asyncio.to_thread(self._deps.store.claims.get, self._job)
        if claim is None or not claim.may_issue(self._owner):
            await self._stop_as_recorded()
        self._raise_if_stopped()
        await asyncio.to_thread(self._record_start)
        self._raise_if_stopped()
        redactor = Redactor(text for item in self._issued for text in secret_texts(item.fields))
        async with keep_leases(self._deps, self._job, self._issuer, self._issued) as lease_keeper:
            self._broker = broker = Broker(
                self._deps, self._verified, self._issuer, lease_keeper, redactor, owner=self._owner, notify_workflow=self._notify_workflow
            )
            self._model_gateway = model_gateway = (
                ModelGateway(self._deps, self._verified, broker, self._spec.model) if self._spec.model else None
            )
            self._tools = tools = ToolGateway(self._deps, self._verified, self._issuer, broker)
            self._raise_if_stopped()
            issued = ((item.credential.resource, item.credential.action) for item in self._issued)
            reaches_vault = self._deps.config.current().catalog.lets_reach_vault(issued)
            async with (
                run_process(
                    self._deps.settings,
                    self._sandbox,
                    JobTask(self._job, self._spec, workdir, delivered, reaches_vault=reaches_vault),
                    redactor=redactor,
                    sink=self._store_output,
                    serve=lambda uid: serve_broker(
                        broker, tools, job=self._job, uid=uid, loopback=self._spec.run.network == "host", model_gateway=model_gateway
                    ),
                ) as process,
                run_until_block_ends(self._requested_revocations.serve(lease_keeper)),
            ):
                return await self._wait_for_process(process)

    async def _issue_all(self) -> Delivered:
        delivered, allowed = Delivered(), list[ToolAccess]()
        for granted in self._order.granted:
            self._raise_if_stopped()
            access = self._spec.access[granted.number - 1]
            try:
                if access.tools is not None:
                    allowed.append(await self._until_servers_listen(partial(self._issuer.allow, granted)))
                    continue
                issued = await self._until_servers_listen(partial(self._issuer.issue, granted))
            except NotPermitted:
                if not access.optional:
                    raise
                continue
            except AccessClosed:
                await self._stop_as_recorded()
                raise SessionStopped from None
            self._issued.append(issued)
            delivered = delivered.merge(build_delivery(access, issued.fields, issued.connect))
        return delivered.merge(access_summary(self._spec, [item.credential for item in self._issued], allowed))

    def _unpack_bundle(self) -> Path | None:
        """Return the folder of the order's bundle; None if it has none. Raises IssueRefused if the store has lost it."""
        digest = self._order.order.bundle
        if not digest:
            return None
        content = self._deps.store.bundles.get(digest)
        if content is None:
            raise IssueRefused(f"bundle {digest} is not in the store: launch the job again, so that its files are sent again")
        return ensure_unpacked(self._deps.settings.home, digest, content)

    def _record_start(self) -> None:
        now, isolation = self._deps.now(), self._sandbox.isolation.value
        where = {"worker": f"{socket.gethostname()}:{os.getpid()}", "sandbox": isolation, "run": self._run}
        times_out_at = (now + timedelta(seconds=self._spec.run.timeout)).isoformat()
        self._deps.store.ledger.append([build_event(EventType.JOB_STARTED, self._job, at=now, **where, times_out_at=times_out_at)])

    async def _until_servers_listen(self, issue: Callable[[], T]) -> T:
        """Issue; try again for a while if a server refuses connections, because it may be restarting."""
        end = self._deps.ticks() + RESTART_TIMEOUT_S
        while True:
            held = len(self._issuer.holdings.alive)
            try:
                return await asyncio.to_thread(issue)
            except ConnectionRefused as error:
                # If a credential was issued and could not be revoked, the job does not get another one.
                if self._deps.ticks() > end or len(self._issuer.holdings.alive) > held:
                    raise
                log.warning("a server refuses connections; trying again", job=self._job, error=str(error))
            await wait_up_to(RESTART_RETRY_INTERVAL, self._stop_requested)
            self._raise_if_stopped()

    async def _wait_for_process(self, process: JobProcess) -> SessionResult:
        ended, stop = asyncio.create_task(process.wait()), asyncio.create_task(self._stop_requested.wait())
        try:
            await asyncio.wait({ended, stop}, timeout=self._spec.run.timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            if self._broker:
                self._broker.close()
        if ended.done():
            self._work_over.set()
            code = ended.result()
            outcome = JobState.FAILED if code else JobState.SUCCEEDED
            return SessionResult(outcome=outcome, exit_code=code, reason=(process.limit_exceeded or f"exit code {code}") if code else None)
        if self._stop is None:
            code = await self._finish(process)
            return SessionResult(outcome=JobState.TIMED_OUT, exit_code=code, reason=f"it ran longer than {self._spec.run.timeout} s")
        if self._stop is Stop.CANCEL:
            # Even if the store does not answer, ask the process to end.
            with suppress(RetryLater):
                read = partial(with_store_timeout, partial(self._deps.store.claims.get, self._job))
                claim = await asyncio.get_running_loop().run_in_executor(REVOCATION_POOL, read)
                if claim is None or not claim.open:
                    self.stop(Stop.CUT)
        if self._stop.is_gentle:
            return self._stopped_outcome(await self._finish(process))
        if self._stop is Stop.KILL:
            # Its access ends before its process, unless Vault does not answer.
            await wait_up_to(KILL_DELAY, self._revocation_tried)
        # Nobody waits for its result any more, or its access is revoked, so it has nothing left to finish.
        return self._stopped_outcome(await process.kill())

    async def _finish(self, process: JobProcess) -> int:
        """Let the process end, kill it after the grace period, and return its exit code.

        It keeps its access no longer than the grace period.
        """
        over = asyncio.get_running_loop().call_later(TERMINATE_GRACE_S, self._work_over.set)
        try:
            return await process.finish(TERMINATE_GRACE_S)
        finally:
            over.cancel()
            self._work_over.set()

    async def _stop_as_recorded(self) -> None:
        """Stop for the reason that the ledger has: a person's kill or cancel, which may not have reached this session yet; else CUT."""
        asked: JobState | None = None
        with suppress(RetryLater):
            asked = await asyncio.to_thread(requested_stop, self._deps.store.ledger, self._job)
        self.stop(next((stop for stop, outcome in STOPPED_OUTCOMES.items() if outcome is asked), Stop.CUT))

    def _raise_if_stopped(self) -> None:
        if self._stop:
            raise SessionStopped

    def _stopped_outcome(self, code: int | None) -> SessionResult:
        outcome = JobState.FAILED if self._stop is None else STOPPED_OUTCOMES.get(self._stop, JobState.FAILED)
        return SessionResult(outcome=outcome, exit_code=code, reason=self._stop.value if self._stop else None, stopped=True)

    def _failure_outcome(self, outcome: JobState, why: str) -> SessionResult:
        return SessionResult(outcome=outcome, reason=why, stopped=self._stop is not None)

    async def _store_output(self, text: str) -> None:
        """Store one batch of output. If the store is slow or unreachable, log lines are lost, but revocation is not delayed."""
        self._batches += 1
        try:
            async with asyncio.timeout(LOG_TIMEOUT_S):
                write = partial(self._deps.store.logs.append, self._job, self._batches, text, self._deps.now())
                await asyncio.get_running_loop().run_in_executor(LOG_WRITER_POOL, write)
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("output not stored", job=self._job, batch=self._batches, error=type(error).__name__)
