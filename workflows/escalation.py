"""The climb of a job's requests through the tiers of approval. Deterministic, no I/O; arithmetic is justenough.domain.approvals.tiers's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.exceptions import FailureError

from workflows.activity_calls import step, told_to_end, type_of
from workflows.signals import Inbox

with workflow.unsafe.imports_passed_through():
    from activities.job_activities import Deciding
    from justenough.domain.approvals.ladder import Answer, Ladder
    from justenough.domain.contracts.workflow_messages import AnswersInput, ClimbInput, WithdrawInput
    from justenough.domain.jobs.states import RequestState


class Escalation:
    """The requests of one job that wait for people, each on its ladder."""

    def __init__(self, job: str, inbox: Inbox, *, on_taken_back: Callable[[str], None]) -> None:
        """`on_taken_back` is told of each request whose approval was taken back."""
        self._job = job
        self._inbox = inbox
        self._on_taken_back = on_taken_back
        self.ladders: dict[str, Ladder] = {}
        self.states: dict[str, RequestState] = {}

    def open(self, ladders: Mapping[str, Ladder]) -> None:
        """Start waiting for these requests' approvers."""
        self.ladders.update(ladders)
        self.states.update(dict.fromkeys(ladders, RequestState.PENDING))

    @property
    def pending(self) -> tuple[str, ...]:
        """Requests that still wait."""
        return tuple(self._in(RequestState.PENDING))

    def answers_of(self, request: str) -> tuple[Answer, ...]:
        """Return the answers that counted for a request."""
        return self.ladders[request].answers if request in self.ladders else ()

    async def until_settled(self, *, enough: Callable[[], bool]) -> None:
        """Return when each request is answered or has run out of tiers, or enough is known; silence never approves."""
        while self.pending and not enough():
            await self.woken(lambda: False)
            await self.move()

    async def woken(self, also: Callable[[], bool]) -> None:
        """Return once an answer has come, a tier's time is over, or something else is so."""
        due = min((self.ladders[request].respond_by for request in self.pending), default=None)
        await _woken_or_due(lambda: bool(self._inbox) or also(), due=due)

    async def move(self) -> None:
        """Examine what has come, and have climb what nobody answered in time."""
        await self.examine()
        await self._climb()

    async def examine(self) -> None:
        """Examine every signal that has come, those for settled requests too: each is recorded."""
        while self._inbox:
            number, received = self._inbox.first()
            try:
                await self._take(number, received)
            except FailureError as error:
                if told_to_end():
                    raise
                await self._take_singly(number, received, why=type_of(error))
            self._inbox.drop(len(received))

    async def withdraw(self, why: str) -> None:
        """Give up what still waits."""
        if self.pending:
            await step(Deciding.withdraw, WithdrawInput(job=self._job, requests=self.pending, why=why))
            self.states.update(dict.fromkeys(self.pending, RequestState.WITHDRAWN))

    def _in(self, state: RequestState) -> dict[str, Ladder]:
        return {request: self.ladders[request] for request, found in self.states.items() if found is state}

    async def _take(self, number: int, received: tuple[Any, ...]) -> None:
        waiting, approved = (self._in(state) for state in (RequestState.PENDING, RequestState.APPROVED))
        asked = AnswersInput(job=self._job, ladders=waiting, approved=approved, received=received, number=number)
        result = await step(Deciding.take_answers, asked)
        self.ladders.update(result.ladders)
        self.states.update({request: RequestState(verdict) for request, verdict in result.verdicts.items()})
        for request, verdict in result.verdicts.items():
            if verdict == RequestState.WITHDRAWN:
                self._on_taken_back(request)

    async def _take_singly(self, number: int, received: tuple[Any, ...], *, why: str) -> None:
        """Examine each on its own where together they were refused: one that cannot be examined changes nothing, for the others neither."""
        workflow.logger.warning("answers could not be examined together", extra={"cause": why})
        for place, one in enumerate(received):
            try:
                await self._take(number + place, (one,))
            except FailureError as error:
                if told_to_end():
                    raise
                workflow.logger.warning("an answer could not be examined", extra={"number": number + place, "cause": type_of(error)})

    async def _climb(self) -> None:
        for request in self.pending:
            if self.ladders[request].respond_by <= workflow.now():
                result = await step(Deciding.climb, ClimbInput(job=self._job, ladder=self.ladders[request]))
                if result.ladder is None:
                    self.states[request] = RequestState.EXPIRED
                else:
                    self.ladders[request] = result.ladder


async def _woken_or_due(woken: Callable[[], bool], *, due: datetime | None) -> None:
    if due is None:
        await workflow.wait_condition(woken)
        return
    left = due - workflow.now()
    if left > timedelta(0):
        try:
            await workflow.wait_condition(woken, timeout=left)
        except TimeoutError:
            return
