"""One job, from its order to the proof that all its access is revoked. Deterministic, no I/O."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from temporalio import workflow
from temporalio.common import RawValue, SearchAttributeKey
from temporalio.exceptions import ActivityError, FailureError, TimeoutType, WorkflowAlreadyStartedError
from temporalio.exceptions import TimeoutError as ActivityTimeout

from workflows import options
from workflows.activity_calls import (
    call_activity,
    error_type,
    is_cancelling,
    is_refusal,
    retry_until_accepted,
    revoke_until_confirmed,
    run_shielded,
    run_unless,
)
from workflows.escalation import Escalation
from workflows.guard import Guard
from workflows.signals import ApprovalRequests, ReceivedAnswers, RevocationRequests, decode_signal

with workflow.unsafe.imports_passed_through():
    from activities.job_activities import JobActivities, RequestLost
    from activities.session_activity import SessionActivities
    from justenough.domain.contracts import search_attributes
    from justenough.domain.contracts.workflow_messages import (
        CloseInput,
        ControlGroupsInput,
        GrantedRequest,
        GuardInput,
        JobInput,
        JobResult,
        OpenInput,
        RevokeInput,
        SessionInput,
        SessionResult,
        StartDecisions,
    )
    from justenough.domain.jobs.result_reasons import ResultReason
    from justenough.domain.jobs.states import JobState, RequestState
    from justenough.domain.ledger.events import Event

DENIAL_TEXTS = {
    RequestState.DENIED: " was denied by an approver",
    RequestState.EXPIRED: " was denied by a timeout: no tier decided in time",
    # An approver or the launcher may have withdrawn it.
    RequestState.WITHDRAWN: ": its approval was withdrawn",
}
REQUEST_LOST = (
    "the store lost a request, or an answer to it, that this job waited for, as after a failover or restore; launch the job again"
)
STATE_ATTRIBUTE = SearchAttributeKey.for_keyword(search_attributes.STATE)


@dataclass(frozen=True)
class JobOutcome:
    """The outcome of a job's work, and whether it is proven that no credential of the job is alive."""

    state: JobState
    exit_code: int | None = None
    reason: str | None = None
    clean: bool = False


@workflow.defn(name="Job")
class Job:
    """Decide, escalate, guard, run, compensate, close."""

    @workflow.init
    def __init__(self, order: JobInput) -> None:
        self._order = order
        self._answers = ReceivedAnswers()
        self._approval_requests = ApprovalRequests(order.job)
        self._revocation_requests = RevocationRequests(order.job)
        self._escalation = Escalation(order.job, self._answers, on_withdrawn=self._revocation_requests.add_request)
        self._attending: tuple[asyncio.Task[None], ...] = ()
        self._unrecorded: tuple[Event, ...] = ()
        self._stop: JobState | None = None
        self._was_cut = False
        self._session: workflow.ActivityHandle[SessionResult] | None = None
        self._gave_up_waiting = False
        self._guarded = False
        self._locks = False
        self._state = JobState.PENDING

    @workflow.run
    async def run(self, order: JobInput) -> JobResult:
        """Run the job. Cancelling only sets a flag that the steps below check, so that nothing interrupts the compensation."""
        return await run_shielded(asyncio.create_task(self._work_and_close(order)), on_cancel=self._cancel)

    @workflow.signal(dynamic=True)
    def receive(self, name: str, args: Sequence[RawValue]) -> None:
        """Accept any signal: a typed handler would fail the workflow's task permanently on a wrong number of arguments.

        `decide` (a signed answer; an invalid one changes nothing), `kill`, `ask` (the id of a request that the running job made),
        `revoke_credential` (its id). Others are ignored.
        """
        if name == "decide":
            self._answers.add(args)
        elif name == "kill":
            self._stop = JobState.KILLED
        elif name == "ask":
            self._approval_requests.add(decode_signal(args))
        elif name == "revoke_credential":
            self._revocation_requests.add(decode_signal(args))

    @workflow.query(name="view")
    def view(self) -> dict[str, object]:
        """Return the job's state, and each request's state, tier and deadline."""
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

    async def _work_and_close(self, order: JobInput) -> JobResult:
        try:
            outcome = await self._work(order)
        except Exception as error:  # noqa: BLE001 - whatever went wrong, a bug included, must not skip the compensation
            workflow.logger.exception("job failed unexpectedly")
            name = error_type(error) if isinstance(error, FailureError) else type(error).__name__
            reason = REQUEST_LOST if name == RequestLost.__name__ else f"unexpected {name}"
            outcome = JobOutcome(self._stop or JobState.FAILED, reason=reason)
        if not outcome.clean:
            outcome = await self._compensate(outcome)
        return await self._close(outcome)

    async def _work(self, order: JobInput) -> JobOutcome:
        permitted = await run_unless(self._is_stopped, self._decide(order))
        if isinstance(permitted, JobOutcome):
            return replace(permitted, clean=not self._locks)
        if permitted is not None and self._stop is None:
            ladders = self._escalation.ladders
            granted = tuple(
                GrantedRequest(id=request.id, number=request.number, answers=ladders[request.id].answers if request.id in ladders else ())
                for request in permitted.requests
                if request.decision.outcome == "allowed" or self._escalation.states.get(request.id) is RequestState.APPROVED
            )
            if any(item.answers for item in granted):
                await self._start_guard(permitted.timeout)
            if self._stop is None:
                return await self._run_session(SessionInput(order=order, granted=granted), permitted)
        # The job was stopped before anything was issued.
        return JobOutcome(self._stop or JobState.CANCELLED, clean=not self._locks)

    async def _decide(self, order: JobInput) -> StartDecisions | JobOutcome:
        """Decide each request and wait for people's approvals; return an outcome if the job does not run."""
        decided = await call_activity(JobActivities.decide_requests, order)
        if decided.refused:
            return JobOutcome(JobState.FAILED, reason=f"refused: {decided.refused}")
        for request in decided.requests:
            if request.decision.outcome == "denied" and not request.optional:
                return JobOutcome(JobState.DENIED, reason=f"{request.action} on {request.resource} was denied by policy")
        if locked := {request.id: request.ladder for request in decided.requests if request.locked and request.ladder}:
            # From here on Vault may have a wrapping token of the job, even if this step fails.
            self._locks = True
            opened = await call_activity(JobActivities.open_locks, ControlGroupsInput(order=order, ladders=locked))
            if opened.refused:
                return JobOutcome(JobState.FAILED, reason=f"refused: {opened.refused}")
        if ladders := {request.id: request.ladder for request in decided.requests if request.ladder}:
            self._publish_state(JobState.AWAITING_APPROVAL)
            self._escalation.open(ladders)
            await self._escalation.wait_settled(enough=lambda: self._is_stopped() or self._denial(decided) is not None)
        return self._denial(decided) or decided

    def _denial(self, decided: StartDecisions) -> JobOutcome | None:
        for request in decided.requests:
            state = self._escalation.states.get(request.id)
            if not request.optional and state in DENIAL_TEXTS:
                return JobOutcome(JobState.DENIED, reason=f"{request.action} on {request.resource}{DENIAL_TEXTS[state]}")
        return None

    async def _start_guard(self, seconds: int) -> None:
        self._guarded = True
        try:
            _ = await workflow.start_child_workflow(
                Guard.run,
                GuardInput(job=self._order.job, deadline=options.guard_seconds(seconds)),
                id=f"{self._order.job}-guard",
                parent_close_policy=workflow.ParentClosePolicy.REQUEST_CANCEL,
            )
        except WorkflowAlreadyStartedError:
            # After a reset the first run's guard still runs; the session will refuse the second claim anyway.
            workflow.logger.warning("a guard is already running")

    async def _run_session(self, order: SessionInput, permitted: StartDecisions) -> JobOutcome:
        """Run the session. If it did nothing (`no_place`), wait until the job has a place, and then run it again."""
        self._publish_state(JobState.RUNNING)
        deadline = workflow.now() + options.GUARDED_QUEUE_TIMEOUT if self._guarded else None
        session = self._start_session(order, permitted, deadline)
        self._attend(seconds=permitted.timeout)
        while (outcome := await self._end_session(session)) is None:
            left, why = (deadline - workflow.now()).total_seconds() if deadline else None, ""
            try:
                await run_unless(self._is_stopped, asyncio.wait_for(call_activity(JobActivities.take_place, order.order), left))
            except (TimeoutError, FailureError) as error:
                # Either it has waited for as long as its guard allows, which may also interrupt an attempt, or it was refused for good.
                self._gave_up_waiting = True
                if isinstance(error, FailureError) and is_refusal(error):
                    why = f"unexpected {error_type(error)}"
            if self._is_session_over():
                outcome = self._outcome(session.result())
                return replace(outcome, reason=why) if why else outcome
            session = self._start_session(order, permitted, deadline)
        return outcome

    def _start_session(
        self, order: SessionInput, permitted: StartDecisions, deadline: datetime | None
    ) -> workflow.ActivityHandle[SessionResult]:
        queue_timeout = max(deadline - workflow.now(), options.SECOND) if deadline else None
        how = options.session(permitted.timeout, launcher=permitted.account, queue_timeout=queue_timeout)
        self._session = workflow.start_activity_method(SessionActivities.run_session, order, **how)
        return self._session

    def _is_session_over(self) -> bool:
        """Whether the session has ended, and no further session follows once the job has a place."""
        session = self._session
        if session is None or not session.done():
            return False
        lacks_place = not session.cancelled() and session.exception() is None and session.result().no_place
        return not lacks_place or self._gave_up_waiting or self._is_stopped()

    async def _end_session(self, session: workflow.ActivityHandle[SessionResult]) -> JobOutcome | None:
        """Wait for the session's end, or end it if the job is stopped; return the outcome, or None if the job has no place."""
        await workflow.wait_condition(lambda: session.done() or self._is_stopped())
        if self._stop is JobState.CANCELLED:
            session.cancel()
            # If its process takes too long to end, a person may still kill it.
            await workflow.wait_condition(lambda: session.done() or self._stop is JobState.KILLED)
        if not session.done():
            self._was_cut = True
            await self._revocation_requests.revoke_everything()
            session.cancel()
            await workflow.wait_condition(session.done)
        if not self._is_session_over():
            return None
        self._state = JobState.REVOKING
        try:
            return self._outcome(session.result())
        except ActivityError as error:
            if self._stop:
                return JobOutcome(self._stop)
            if not isinstance(error.cause, ActivityTimeout):
                return JobOutcome(JobState.FAILED, reason=f"session_failed: {error_type(error)}")
            was_taken = error.cause.type is not TimeoutType.SCHEDULE_TO_START
            return JobOutcome(JobState.FAILED, reason=ResultReason.WORKER_LOST if was_taken else ResultReason.NO_WORKER)
        except asyncio.CancelledError:
            # Our own cancel overtook the session's result, so its proof is lost.
            return JobOutcome(self._stop or JobState.FAILED)

    def _attend(self, *, seconds: int) -> None:
        """Serve approvals and revocations while the session runs, each in a separate task, so that they do not delay stopping or
        compensating the job.
        """

        async def open_requests_before_answers() -> None:
            # Earlier releases rejected answers to requests that waited to be opened while earlier answers were examined.
            if self._approval_requests and workflow.patched("open-before-answers"):
                await self._open_requests(seconds)

        async def approvals() -> None:
            self._escalation.before_answers = open_requests_before_answers
            while not self._is_session_over():
                await self._escalation.wait_for_change(lambda: self._is_session_over() or bool(self._approval_requests))
                await self._open_requests(seconds)
                await self._escalation.process_until(self._is_session_over)

        async def revocations() -> None:
            while not self._is_session_over():
                await workflow.wait_condition(lambda: self._is_session_over() or bool(self._revocation_requests))
                await self._revocation_requests.revoke_each()

        self._attending = (asyncio.create_task(approvals()), asyncio.create_task(revocations()))

    async def _open_requests(self, seconds: int) -> None:
        """Open the requests that the running job asked for, with a guard for a process that may run for `seconds`."""
        while self._approval_requests and not self._is_session_over():
            request = self._approval_requests.pop()
            # Start the guard before anybody can answer.
            if not self._guarded:
                await self._start_guard(seconds)
            try:
                opened = await call_activity(JobActivities.open_request, OpenInput(job=self._order.job, request=request))
            except FailureError as error:
                if is_cancelling():
                    raise
                workflow.logger.warning("a request could not be opened", extra={"request": request, "cause": error_type(error)})
            else:
                self._escalation.open({request: opened.ladder} if opened.ladder else {})

    def _outcome(self, result: SessionResult) -> JobOutcome:
        self._unrecorded += result.unrecorded
        # A session that ended by itself before the stop arrived keeps its own outcome, unless a kill had revoked its access already.
        asked = self._stop if result.stopped or result.no_place or self._was_cut else None
        return JobOutcome(asked or result.outcome, exit_code=result.exit_code, reason=None if asked else result.reason, clean=result.clean)

    async def _compensate(self, outcome: JobOutcome) -> JobOutcome:
        self._state = JobState.REVOKING
        result = await revoke_until_confirmed(
            RevokeInput(job=self._order.job, by="compensation", why=(outcome.reason or outcome.state.value)[:500])
        )
        self._unrecorded += result.unrecorded
        return replace(outcome, clean=True)

    async def _close(self, outcome: JobOutcome) -> JobResult:
        try:
            for task in self._attending:
                await task
            await self._escalation.withdraw_pending("the job was stopped" if self._stop else "the job has ended")
            await self._escalation.examine()
        except Exception:  # noqa: BLE001 - nothing here may keep a job from closing; its end settles what is left
            workflow.logger.warning("requests could not be settled yet; they are settled when the job ends")
        closing = CloseInput(
            job=self._order.job,
            state=outcome.state,
            exit_code=outcome.exit_code,
            reason=outcome.reason,
            unrecorded=(*self._revocation_requests.unrecorded, *self._unrecorded),
        )
        closed = await retry_until_accepted(lambda: call_activity(JobActivities.close, closing))
        self._publish_state(closed.state)
        return closed

    def _cancel(self) -> None:
        # A cancel does not override a kill.
        self._stop = self._stop or JobState.CANCELLED

    def _is_stopped(self) -> bool:
        return self._stop is not None

    def _publish_state(self, state: JobState) -> None:
        self._state = state
        workflow.upsert_search_attributes([STATE_ATTRIBUTE.value_set(state.value)])
