"""One job, from its order to the proof that nothing of it is alive. Deterministic, no I/O."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, replace

from temporalio import workflow
from temporalio.common import RawValue, SearchAttributeKey
from temporalio.exceptions import ActivityError, ApplicationError, WorkflowAlreadyStartedError
from temporalio.exceptions import TimeoutError as ActivityTimeout

from workflows import options
from workflows.escalation import Escalation, Inbox
from workflows.guard import Guard
from workflows.steps import step

with workflow.unsafe.imports_passed_through():
    from activities.deciding import Deciding
    from activities.ending import Ending
    from activities.session.run import Sessions
    from justenough.access import JobState, RequestState
    from justenough.events import Event
    from justenough.messages import (
        Closed,
        CloseInput,
        Decided,
        Granted,
        GuardInput,
        JobInput,
        RevokeCredentialInput,
        RevokeInput,
        SessionInput,
        SessionResult,
    )

STATE = SearchAttributeKey.for_keyword("JustEnoughState")


@dataclass(frozen=True)
class Outcome:
    """How a job's work came out, and whether something it was issued may still be alive."""

    state: JobState
    exit_code: int | None = None
    reason: str | None = None
    clean: bool = False
    unrecorded: tuple[Event, ...] = ()


@workflow.defn(name="Job")
class Job:
    """Decide, climb, guard, run, compensate, close."""

    @workflow.init
    def __init__(self, order: JobInput) -> None:
        self._order = order
        self._inbox = Inbox()
        self._escalation = Escalation(order.job, self._inbox)
        self._to_revoke: deque[str] = deque()
        self._stop: JobState | None = None
        self._stopping = False
        self._state = JobState.PENDING

    @workflow.run
    async def run(self, order: JobInput) -> Closed:
        """Run the job; a cancel becomes a wish that the life below obeys in its own order, so that nothing interrupts its compensation."""
        life = asyncio.create_task(self._live(order))
        try:
            return await asyncio.shield(life)
        except asyncio.CancelledError:
            # Eviction from the worker's cache looks the same but has no reason; it must go through.
            if workflow.cancellation_reason() is None or self._stop is not None:
                raise
        self._stop = JobState.CANCELLED
        return await life

    @workflow.signal(name="decide")
    def decide(self, received: RawValue) -> None:
        """Take a signed answer; anything may come, and what does not verify changes nothing."""
        self._inbox.put(received)

    @workflow.signal(name="kill")
    def kill(self) -> None:
        """Cut all access, then end the process, then close."""
        self._stop = JobState.KILLED

    @workflow.signal(name="revoke_credential")
    def revoke_credential(self, credential: str) -> None:
        """End one credential of this job now."""
        self._to_revoke.append(credential)

    @workflow.query(name="view")
    def view(self) -> dict[str, object]:
        """Return where the job is: its state, and each waiting request's tier and clock."""
        return {
            "job": self._order.job,
            "state": self._state.value,
            "requests": {
                request: {
                    "state": self._escalation.states[request].value,
                    "tier": ladder.current,
                    "respond_by": ladder.respond_by.isoformat(),
                }
                for request, ladder in self._escalation.ladders.items()
            },
        }

    async def _live(self, order: JobInput) -> Closed:
        try:
            outcome = await self._work(order)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, a bug included, must not skip the compensation
            workflow.logger.exception("job failed unexpectedly")
            outcome = Outcome(JobState.FAILED, reason=f"unexpected {type(error).__name__}")
        if not outcome.clean:
            outcome = await self._compensate(outcome)
        return await self._close(outcome)

    async def _work(self, order: JobInput) -> Outcome:
        decided = await step(Deciding.decide_requests, order)
        if decided.refused:
            return Outcome(JobState.FAILED, reason=f"refused: {decided.refused}", clean=True)
        for request in decided.requests:
            if request.decision.outcome == "denied" and not request.optional:
                return Outcome(JobState.DENIED, reason=_denied(request.resource, request.action, "policy"), clean=True)
        if (refusal := await self._climb(decided)) is not None:
            return refusal
        if self._stop:
            return Outcome(self._stop, clean=True)
        granted = self._granted(decided)
        if any(item.answers for item in granted):
            await self._start_guard(decided)
        return await self._session(SessionInput(order=order, granted=granted), seconds=decided.timeout)

    async def _climb(self, decided: Decided) -> Outcome | None:
        ladders = {request.id: request.ladder for request in decided.requests if request.ladder}
        if not ladders:
            return None
        self._show(JobState.AWAITING_APPROVAL)
        self._escalation.open(ladders)
        await self._escalation.until_settled(stopped=lambda: self._stop is not None or self._refused(decided) is not None)
        refusal = self._refused(decided)
        await self._escalation.withdraw("the job was stopped" if self._stop else "the job does not run")
        return refusal

    def _refused(self, decided: Decided) -> Outcome | None:
        for request in decided.requests:
            state = self._escalation.states.get(request.id)
            if not request.optional and state in {RequestState.DENIED, RequestState.EXPIRED}:
                by = "an approver" if state is RequestState.DENIED else "silence: no tier answered in time"
                return Outcome(JobState.DENIED, reason=_denied(request.resource, request.action, by), clean=True)
        return None

    def _granted(self, decided: Decided) -> tuple[Granted, ...]:
        return tuple(
            Granted(id=request.id, number=request.number, answers=self._escalation.answers_of(request.id))
            for request in decided.requests
            if request.decision.outcome == "allowed" or self._escalation.states.get(request.id) is RequestState.APPROVED
        )

    async def _start_guard(self, decided: Decided) -> None:
        grace = int((options.SESSION_MARGIN + options.GUARD_GRACE).total_seconds())
        try:
            _ = await workflow.start_child_workflow(
                Guard.run,
                GuardInput(job=self._order.job, deadline=decided.timeout + grace),
                id=f"{self._order.job}-guard",
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
            )
        except WorkflowAlreadyStartedError:
            # After a reset the first run's guard still stands; the session will refuse the second claim anyway.
            workflow.logger.warning("a guard stands already")

    async def _session(self, order: SessionInput, *, seconds: int) -> Outcome:
        self._show(JobState.RUNNING)
        session = workflow.start_activity_method(Sessions.run_session, order, **options.session(seconds))
        while not session.done():
            await workflow.wait_condition(lambda: session.done() or self._wanted())
            await self._escalation.examine()
            await self._revoke_wanted()
            if self._stop and not self._stopping:
                self._stopping = True
                if self._stop is JobState.KILLED:
                    await self._cut()
                session.cancel()
        self._state = JobState.REVOKING
        try:
            return self._outcome(session.result())
        except ActivityError as error:
            return self._unproven(error)

    def _wanted(self) -> bool:
        return bool(self._inbox) or bool(self._to_revoke) or (self._stop is not None and not self._stopping)

    def _outcome(self, result: SessionResult) -> Outcome:
        # What ended by itself before a cancel arrived keeps its own ending; a kill has cut its access first, whatever it made of that.
        killed = self._stop is JobState.KILLED and self._stopping
        asked = self._stop if result.stopped or killed else None
        return Outcome(
            asked or result.outcome,
            exit_code=result.exit_code,
            reason=None if asked else result.reason,
            clean=result.clean,
            unrecorded=result.unrecorded,
        )

    def _unproven(self, error: ActivityError) -> Outcome:
        if self._stop:
            return Outcome(self._stop)
        if isinstance(error.cause, ActivityTimeout):
            return Outcome(JobState.FAILED, reason="worker_lost")
        detail = error.cause.type if isinstance(error.cause, ApplicationError) else type(error.cause).__name__
        return Outcome(JobState.FAILED, reason=f"session_failed: {detail}")

    async def _revoke_wanted(self) -> None:
        while self._to_revoke:
            wanted = RevokeCredentialInput(job=self._order.job, credential=self._to_revoke.popleft())
            try:
                await workflow.execute_activity_method(Ending.revoke_credential, wanted, **options.CUT)
            except ActivityError:
                workflow.logger.warning("a credential could not be revoked yet; the job's ending will")

    async def _cut(self) -> None:
        try:
            await workflow.execute_activity_method(
                Ending.revoke_job, RevokeInput(job=self._order.job, by="person", why="killed", attempts=1), **options.CUT
            )
        except ActivityError:
            workflow.logger.warning("access could not be cut yet; the compensation will")

    async def _compensate(self, outcome: Outcome) -> Outcome:
        self._state = JobState.REVOKING
        result = await workflow.execute_activity_method(
            Ending.revoke_job,
            RevokeInput(job=self._order.job, by="compensation", why=outcome.reason or outcome.state.value),
            **options.REVOKE,
        )
        return replace(outcome, clean=result.confirmed, unrecorded=(*outcome.unrecorded, *result.unrecorded))

    async def _close(self, outcome: Outcome) -> Closed:
        await self._escalation.examine()
        closing = CloseInput(
            job=self._order.job,
            state=outcome.state,
            exit_code=outcome.exit_code,
            reason=outcome.reason,
            unrecorded=outcome.unrecorded,
        )
        closed = await step(Deciding.close, closing)
        self._show(closed.state)
        return closed

    def _show(self, state: JobState) -> None:
        self._state = state
        workflow.upsert_search_attributes([STATE.value_set(state.value)])


def _denied(resource: str, action: str, by: str) -> str:
    return f"{action} on {resource} was denied by {by}"
