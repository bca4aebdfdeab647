"""Escalates a job's requests through the tiers of approval. Deterministic, no I/O; the arithmetic is in justenough.domain.approvals.tiers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError

from workflows.activity_calls import call_activity, error_type, is_cancelling, run_unless
from workflows.signals import ReceivedAnswers

with workflow.unsafe.imports_passed_through():
    from activities.job_activities import JobActivities
    from justenough.domain.approvals.ladder import Ladder
    from justenough.domain.contracts.workflow_messages import AnswersInput, ClimbInput, WithdrawInput
    from justenough.domain.jobs.states import RequestState


class Escalation:
    """The requests of one job that wait for people, each on its ladder."""

    def __init__(self, job: str, answers: ReceivedAnswers, *, on_withdrawn: Callable[[str], None]) -> None:
        """`on_withdrawn` is called with each request whose approval was withdrawn."""
        self._job = job
        self._answers = answers
        self._on_withdrawn = on_withdrawn
        self.before_answers: Callable[[], Awaitable[None]] | None = None
        """Called before each batch of answers is examined."""
        self.ladders: dict[str, Ladder] = {}
        self.states: dict[str, RequestState] = {}

    def open(self, ladders: Mapping[str, Ladder]) -> None:
        """Start waiting for these requests' approvers."""
        self.ladders.update(ladders)
        self.states.update(dict.fromkeys(ladders, RequestState.PENDING))

    @property
    def pending(self) -> tuple[str, ...]:
        return tuple(self._in_state(RequestState.PENDING))

    async def wait_settled(self, *, enough: Callable[[], bool]) -> None:
        """Wait until every request is answered or has expired past its top tier, or `enough` is true. Silence never approves."""
        while self.pending and not enough():
            await self.wait_for_change(lambda: False)
            await self.process()

    async def wait_for_change(self, also: Callable[[], bool]) -> None:
        """Return once an answer has arrived, a tier's time is over, or `also` is true."""
        due = min((self.ladders[request].respond_by for request in self.pending), default=None)
        left = None if due is None else due - workflow.now()
        if left is not None and left <= timedelta(0):
            return
        with suppress(TimeoutError):
            await workflow.wait_condition(lambda: bool(self._answers) or also(), timeout=left)

    async def process(self) -> None:
        """Examine the answers that have arrived, and escalate the requests that nobody answered in time.

        Raises FailureError if an escalation is refused for good.
        """
        await self.examine()
        for request in self.pending:
            if await self._is_due(request):
                await self._climb(request)

    async def process_until(self, is_over: Callable[[], bool]) -> None:
        """Do the same for a running job: until `is_over`, which ends an escalation that cannot be done now. One that is refused for good
        expires its own request, and no other.
        """
        await self.examine()
        for request in self.pending:
            if await self._is_due(request):
                # Earlier releases served no further request after a refusal, and did not end the job before an escalation was done.
                if not workflow.patched("escalate-beside-session"):
                    await self._climb(request)
                    continue
                try:
                    await run_unless(is_over, self._climb(request))
                except FailureError as error:
                    if is_cancelling():
                        raise
                    workflow.logger.warning("a request could not be escalated", extra={"request": request, "cause": error_type(error)})
                    self.states[request] = RequestState.EXPIRED

    async def examine(self) -> None:
        """Examine every answer that has arrived, including answers to settled requests: each is recorded."""
        while self._answers:
            if self.before_answers is not None:
                await self.before_answers()
            number, received = self._answers.first()
            try:
                await self._examine_batch(number, received)
            except FailureError as error:
                if is_cancelling():
                    raise
                workflow.logger.warning("answers could not be examined together", extra={"cause": error_type(error)})
                # Examine each answer separately: one that cannot be examined must not affect the others.
                for place, answer in enumerate(received, start=number):
                    try:
                        await self._examine_batch(place, (answer,))
                    except FailureError as single:
                        if is_cancelling():
                            raise
                        workflow.logger.warning("an answer could not be examined", extra={"number": place, "cause": error_type(single)})
            self._answers.drop(len(received))

    async def withdraw_pending(self, why: str) -> None:
        if self.pending:
            await call_activity(JobActivities.withdraw_requests, WithdrawInput(job=self._job, requests=self.pending, why=why))
            self.states.update(dict.fromkeys(self.pending, RequestState.WITHDRAWN))

    def _in_state(self, state: RequestState) -> dict[str, Ladder]:
        return {request: self.ladders[request] for request, found in self.states.items() if found is state}

    async def _is_due(self, request: str) -> bool:
        """Whether a request's tier did not answer in time. Answers that arrived while another request escalated are examined first: that
        may have taken long.
        """
        if self._answers and workflow.patched("examine-between-escalations"):
            await self.examine()
        return self.states[request] is RequestState.PENDING and self.ladders[request].respond_by <= workflow.now()

    async def _climb(self, request: str) -> None:
        before = self.ladders[request]
        result = await call_activity(JobActivities.climb, ClimbInput(job=self._job, ladder=before))
        if result.ladder is None:
            self.states[request] = RequestState.EXPIRED
        elif result.ladder.current == before.current:
            # It is not due yet by the worker's clock. Wait for the time that is left, however far Temporal's clock is ahead.
            left = result.ladder.respond_by - before.respond_by
            self.ladders[request] = before.model_copy(update={"respond_by": workflow.now() + left})
        else:
            self.ladders[request] = result.ladder
            if result.approved:
                self.states[request] = RequestState.APPROVED

    async def _examine_batch(self, number: int, received: tuple[Any, ...]) -> None:
        # Send only the ladders that these answers name: all of a job's ladders may not fit into a payload.
        statements = [answer.get("statement") for answer in received if isinstance(answer, dict)]
        named = [statement.get("request") for statement in statements if isinstance(statement, dict)]
        waiting, approved = (
            {request: ladder for request, ladder in self._in_state(state).items() if request in named}
            for state in (RequestState.PENDING, RequestState.APPROVED)
        )
        answers = AnswersInput(job=self._job, ladders=waiting, approved=approved, received=received, number=number)
        result = await call_activity(JobActivities.take_answers, answers)
        self.ladders.update(result.ladders)
        self.states.update({request: RequestState(verdict) for request, verdict in result.verdicts.items()})
        for request, verdict in result.verdicts.items():
            if verdict == RequestState.WITHDRAWN:
                self._on_withdrawn(request)
