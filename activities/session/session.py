"""One session from its first issue to its proof: issue, run, keep, end, revoke. Knows no Temporal; run.py tells it to stop."""

from __future__ import annotations

import asyncio
import os
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path

import structlog

from activities.broker import Door, Models, Tools, listening
from activities.broker.broker import Tell
from activities.delivery.delivery import Delivered, delivered, secrets_of, texts_of, told_of_access
from activities.issuing.issuer import Issuer
from activities.issuing.lease_keeper import kept
from activities.issuing.results import Allowed, Closed, Issuance, NotIssued, NotPermitted, issued_event
from activities.process.bundles import unpacked
from activities.process.process import JobProcess
from activities.process.sandbox import Sandbox
from activities.revocation import revoke
from activities.session.job_runner import Task, running
from justenough.domain.contracts.workflow_messages import SessionInput, SessionResult
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.events import Event, EventType, event
from justenough.services.dependencies import Deps
from justenough.services.job_history import Past
from justenough.services.verify_order import VerifiedOrder

GRACE = 10.0
"""Seconds between asking a process to end and killing it."""
LOG_SECONDS = 2.0
WRITERS = ThreadPoolExecutor(4, thread_name_prefix="output")
"""Threads of their own for storing output: those that hang in a slow store must be none that issuing and revoking need."""
log = structlog.get_logger()


class Stop(StrEnum):
    """Why a session is told to stop."""

    CANCEL = "cancelled"
    CUT = "access_cut"
    """Its claim was closed: a kill, the guard, or the sweep has ended its access already."""
    GONE = "workflow_gone"
    WORKER = "worker_stopped"


@dataclass(frozen=True)
class Ending:
    """How the work came out, before anything was revoked."""

    outcome: JobState
    exit_code: int | None = None
    reason: str | None = None
    stopped: bool = False
    """Whether it ended because it was told to, and not by itself before it heard."""


class Stopped(Exception):
    """Raised inside the work where it has been told to stop."""


class Life:
    """Acquires and releases on one screen: whatever `_work` does, `_end` follows."""

    def __init__(
        self, deps: Deps, sandbox: Sandbox, order: SessionInput, verified: VerifiedOrder, past: Past, *, owner: str, run: str, tell: Tell
    ) -> None:
        """`tell` has the job's workflow ask people for a request."""
        self._deps = deps
        self._sandbox = sandbox
        self._order = order
        self._job = order.order.job
        self._verified = verified
        self._spec = verified.spec
        self._owner = owner
        self._run = run
        self._tell = tell
        self._door: Door | None = None
        self._models: Models | None = None
        self._issuer = Issuer(deps, order.order, verified, past, owner=owner)
        self._issued: list[Issuance] = []
        self._stop: Stop | None = None
        self._told = asyncio.Event()
        self._batches = 0

    def stop(self, why: Stop) -> None:
        """Ask the session to end. Access that was cut already outweighs any other reason."""
        if self._stop is None or why is Stop.CUT:
            self._stop = why
        # A process that is asked to end may still need what it holds; it gets nothing new.
        if self._door:
            self._door.close()
        self._told.set()

    async def live(self) -> SessionResult:
        """Work, then revoke; returns only after revoking was tried, with what was seen."""
        try:
            ending = await self._work()
        except Stopped:
            ending = self._stopped(None)
        except NotPermitted as error:
            ending = self._broken_off(JobState.DENIED, str(error))
        except JustEnoughError as error:
            ending = self._broken_off(JobState.FAILED, f"{type(error).__name__}: {error}")
        except Exception as error:
            log.exception("session failed unexpectedly", job=self._job)
            ending = self._broken_off(JobState.FAILED, f"unexpected {type(error).__name__}")
        return await self._end(ending)

    async def _work(self) -> Ending:
        given = await self._issue_all()
        workdir = await asyncio.to_thread(self._workdir)
        self._go_on()
        if not await asyncio.to_thread(self._begun):
            self.stop(Stop.CUT)
        self._go_on()
        redactor = Redactor(texts_of(value for item in self._issued for value in secrets_of(item.fields)))
        async with kept(self._deps, self._job, self._issuer, self._issued) as keepers:
            self._door = door = Door(self._deps, self._verified, self._issuer, keepers, redactor, owner=self._owner, tell=self._tell)
            self._models = models = Models(self._deps, self._verified, door, self._spec.model) if self._spec.model else None
            tools = Tools(self._deps, self._verified, self._issuer, door)
            self._go_on()
            async with running(
                self._deps.settings,
                self._sandbox,
                Task(self._job, self._spec, workdir, given),
                redactor=redactor,
                sink=self._log,
                serve=lambda uid: listening(door, tools, job=self._job, uid=uid, loopback=self._spec.run.network == "host", models=models),
            ) as process:
                return await self._until_ended(process)

    async def _issue_all(self) -> Delivered:
        given, allowed = Delivered(), list[Allowed]()
        for granted in self._order.granted:
            self._go_on()
            access = self._spec.access[granted.number - 1]
            try:
                if access.tools is not None:
                    allowed.append(await asyncio.to_thread(self._issuer.allow, granted))
                    continue
                issuance = await asyncio.to_thread(self._issuer.issue, granted)
            except NotPermitted:
                if not access.optional:
                    raise
                continue
            except Closed:
                self.stop(Stop.CUT)
                raise Stopped from None
            self._issued.append(issuance)
            connect = self._deps.config.current().catalog.resources[access.resource].connect
            given = given.joined(delivered(access, issuance.fields, connect))
        return given.joined(told_of_access(self._spec, [item.credential for item in self._issued], allowed))

    def _workdir(self) -> Path | None:
        digest = self._order.order.bundle
        if digest is None:
            return None
        content = self._deps.store.bundle(digest)
        if content is None:
            message = f"bundle {digest} is not in the store: launch the job anew, so that its files are sent again"
            raise NotIssued(message)
        return unpacked(self._deps.settings.home, digest, content)

    async def _until_ended(self, process: JobProcess) -> Ending:
        ended, told = asyncio.create_task(process.wait()), asyncio.create_task(self._told.wait())
        try:
            await asyncio.wait({ended, told}, timeout=self._spec.run.timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            told.cancel()
            if self._door:
                self._door.close()
        if ended.done():
            code = ended.result()
            outcome = JobState.FAILED if code else JobState.SUCCEEDED
            return Ending(outcome, exit_code=code, reason=(process.over or f"exit code {code}") if code else None)
        if self._stop is None:
            code = await process.finish(GRACE)
            return Ending(JobState.TIMED_OUT, exit_code=code, reason=f"it ran longer than {self._spec.run.timeout} s")
        return self._stopped(await self._asked_to_end(process))

    async def _asked_to_end(self, process: JobProcess) -> int:
        if self._stop is Stop.CANCEL and not await asyncio.to_thread(self._claim_is_open):
            self.stop(Stop.CUT)
        if self._stop in {Stop.CANCEL, Stop.WORKER}:
            return await process.finish(GRACE)
        # Nobody waits for its result any more, or its access is gone: it has nothing left to finish.
        return await process.kill()

    def _begun(self) -> bool:
        """Record the start; False where the claim was closed: a session that slept through its own ending starts no process."""
        if not self._claim_is_open():
            return False
        self._deps.store.record([self._started()])
        return True

    def _claim_is_open(self) -> bool:
        claim = self._deps.store.claim_of(self._job)
        return claim is not None and claim.open

    def _go_on(self) -> None:
        if self._stop:
            raise Stopped

    def _stopped(self, code: int | None) -> Ending:
        outcome = JobState.CANCELLED if self._stop is Stop.CANCEL else JobState.FAILED
        return Ending(outcome, exit_code=code, reason=self._stop.value if self._stop else None, stopped=True)

    def _broken_off(self, outcome: JobState, why: str) -> Ending:
        return Ending(outcome, reason=why, stopped=self._stop is not None)

    async def _end(self, ending: Ending) -> SessionResult:
        """Revoke and confirm on the spot, milliseconds after the process ended. Nothing is being issued any more: `_work` has returned."""
        result = await asyncio.to_thread(
            revoke.revoke,
            self._deps,
            self._job,
            by="session",
            why=ending.reason or ending.outcome.value,
            settled=self._issuer.settled,
            known=self._issuer.issued,
            spaces=self._issuer.spaces,
            # Recorded at their issue already, unless the ledger failed just then: what was issued must not be missing from it.
            before=(
                *(issued_event(self._job, credential) for credential in self._issuer.issued),
                *(self._models.unrecorded() if self._models else ()),
            ),
        )
        return SessionResult(
            outcome=ending.outcome,
            exit_code=ending.exit_code,
            reason=ending.reason,
            # Not what it was told since: a process that ended by itself keeps its ending, however long revoking takes.
            stopped=ending.stopped,
            clean=result.confirmed,
            unrecorded=result.events,
        )

    def _started(self) -> Event:
        return event(
            EventType.JOB_STARTED,
            self._job,
            at=self._deps.now(),
            worker=f"{socket.gethostname()}:{os.getpid()}",
            sandbox=self._sandbox.isolation.value,
            run=self._run,
        )

    async def _log(self, text: str) -> None:
        """Store one batch of output. A store that is slow or away costs log lines, never a revocation's time."""
        self._batches += 1
        try:
            async with asyncio.timeout(LOG_SECONDS):
                write = partial(self._deps.store.append_log, self._job, self._batches, text, self._deps.now())
                await asyncio.get_running_loop().run_in_executor(WRITERS, write)
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("output not stored", job=self._job, batch=self._batches, error=type(error).__name__)
