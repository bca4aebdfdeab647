"""The climb of a job's requests through the tiers of approval. Deterministic, no I/O; arithmetic is justenough.domain.approvals.tiers's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError

from workflows.activity_calls import call_activity, error_type, is_cancelling
from workflows.signals import ReceivedAnswers

with workflow.unsafe.imports_passed_through():
    from activities.job_activities import JobActivities
    from justenough.domain.approvals.ladder import ApprovalAnswer, Ladder
    from justenough.domain.contracts.workflow_messages import AnswersInput, ClimbInput, WithdrawInput
    from justenough.domain.jobs.states import RequestState


class Escalation:
    """The requests of one job that wait for people, each on its ladder."""

    def __init__(self, job: str, answers: ReceivedAnswers, *, on_withdrawn: Callable[[str], None]) -> None:
        """`on_withdrawn` is told of each request whose approval was taken back."""
        self._job = job
        self._answers = answers
        self._on_withdrawn = on_withdrawn
        self.ladders: dict[str, Ladder] = {}
        self.states: dict[str, RequestState] = {}

    def open(self, ladders: Mapping[str, Ladder]) -> None:
        """Start waiting for these requests' approvers."""
        self.ladders.update(ladders)
        self.states.update(dict.fromkeys(ladders, RequestState.PENDING))

    @property
    def pending(self) -> tuple[str, ...]:
        """Requests that still wait."""
        return tuple(self._in_state(RequestState.PENDING))

    def answers_of(self, request: str) -> tuple[ApprovalAnswer, ...]:
        """Return the answers that counted for a request."""
        return self.ladders[request].answers if request in self.ladders else ()

    async def wait_settled(self, *, enough: Callable[[], bool]) -> None:
        """Return when each request is answered or has run out of tiers, or enough is known; silence never approves."""
        while self.pending and not enough():
            await self.wait_for_change(lambda: False)
            await self.process()

    async def wait_for_change(self, also: Callable[[], bool]) -> None:
        """Return once an answer has come, a tier's time is over, or something else is so."""
        due = min((self.ladders[request].respond_by for request in self.pending), default=None)
        await _wait_until(lambda: bool(self._answers) or also(), due=due)

    async def process(self) -> None:
        """Examine what has come, and have climb what nobody answered in time."""
        await self.examine()
        await self._climb()

    async def examine(self) -> None:
        """Examine every signal that has come, those for settled requests too: each is recorded."""
        while self._answers:
            number, received = self._answers.first()
            try:
                await self._examine_batch(number, received)
            except FailureError as error:
                if is_cancelling():
                    raise
                await self._examine_singly(number, received, why=error_type(error))
            self._answers.drop(len(received))

    async def withdraw(self, why: str) -> None:
        """Give up what still waits."""
        if self.pending:
            await call_activity(JobActivities.withdraw, WithdrawInput(job=self._job, requests=self.pending, why=why))
            self.states.update(dict.fromkeys(self.pending, RequestState.WITHDRAWN))

    def _in_state(self, state: RequestState) -> dict[str, Ladder]:
        return {request: self.ladders[request] for request, found in self.states.items() if found is state}

    async def _examine_batch(self, number: int, received: tuple[Any, ...]) -> None:
        waiting, approved = (self._in_state(state) for state in (RequestState.PENDING, RequestState.APPROVED))
        asked = AnswersInput(job=self._job, ladders=waiting, approved=approved, received=received, number=number)
        result = await call_activity(JobActivities.take_answers, asked)
        self.ladders.update(result.ladders)
        self.states.update({request: RequestState(verdict) for request, verdict in result.verdicts.items()})
        for request, verdict in result.verdicts.items():
            if verdict == RequestState.WITHDRAWN:
                self._on_withdrawn(request)

    async def _examine_singly(self, number: int, received: tuple[Any, ...], *, why: str) -> None:
        """Examine each on its own where together they were refused: one that cannot be examined changes nothing, for the others neither."""
        workflow.logger.warning("answers could not be examined together", extra={"cause": why})
        for place, one in enumerate(received):
            try:
                await self._examine_batch(number + place, (one,))
            except FailureError as error:
                if is_cancelling():
                    raise
                workflow.logger.warning("an answer could not be examined", extra={"number": number + place, "cause": error_type(error)})

    async def _climb(self) -> None:
        for request in self.pending:
            if self.ladders[request].respond_by <= workflow.now():
                result = await call_activity(JobActivities.climb, ClimbInput(job=self._job, ladder=self.ladders[request]))
                if result.ladder is None:
                    self.states[request] = RequestState.EXPIRED
                else:
                    self.ladders[request] = result.ladder


async def _wait_until(condition: Callable[[], bool], *, due: datetime | None) -> None:
    if due is None:
        await workflow.wait_condition(condition)
        return
    left = due - workflow.now()
    if left > timedelta(0):
        try:
            await workflow.wait_condition(condition, timeout=left)
        except TimeoutError:
            return
