"""The climb of a job's requests through the tiers of approval. Deterministic, no I/O; arithmetic is justenough.approval's."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue

from workflows import options
from workflows.steps import step

with workflow.unsafe.imports_passed_through():
    from activities.deciding import Deciding
    from justenough.access import RequestState
    from justenough.approval import Answer, Ladder
    from justenough.messages import AnswersInput, ClimbInput, WithdrawInput

MAX_SIGNAL_BYTES = 64 * 1024


class Inbox:
    """Signals as they came, until they are examined. Their content is a stranger's until then."""

    def __init__(self) -> None:
        self._received: deque[Any] = deque()
        self._examined = 0

    def __bool__(self) -> bool:
        return bool(self._received)

    def put(self, received: RawValue) -> None:
        """Keep one signal's content, whatever it is."""
        if self._examined + len(self._received) < options.ANSWERS_RECORDED:
            self._received.append(_read(received))

    def take(self) -> tuple[int, tuple[Any, ...]]:
        """Return the number of the first signal taken, from 1, and what some of them carried."""
        first = self._examined + 1
        taken = tuple(self._received.popleft() for _ in range(min(len(self._received), options.ANSWERS_AT_ONCE)))
        self._examined += len(taken)
        return first, taken


class Escalation:
    """The requests of one job that wait for people, each on its ladder."""

    def __init__(self, job: str, inbox: Inbox) -> None:
        self._job = job
        self._inbox = inbox
        self.ladders: dict[str, Ladder] = {}
        self.states: dict[str, RequestState] = {}

    def open(self, ladders: Mapping[str, Ladder]) -> None:
        """Start waiting for these requests' approvers."""
        self.ladders.update(ladders)
        self.states.update(dict.fromkeys(ladders, RequestState.PENDING))

    @property
    def pending(self) -> tuple[str, ...]:
        """Requests that still wait."""
        return tuple(request for request, state in self.states.items() if state is RequestState.PENDING)

    def answers_of(self, request: str) -> tuple[Answer, ...]:
        """Return the answers that counted for a request."""
        return self.ladders[request].answers if request in self.ladders else ()

    async def until_settled(self, *, stopped: Callable[[], bool]) -> None:
        """Return when each request is answered, has run out of tiers, or the job is stopped; silence never approves."""
        while self.pending and not stopped():
            await _woken_or_due(
                lambda: bool(self._inbox) or stopped(), due=min(self.ladders[request].respond_by for request in self.pending)
            )
            await self.examine()
            await self._climb()

    async def examine(self) -> None:
        """Examine every signal that has come, those for settled requests too: each is recorded."""
        while self._inbox:
            number, received = self._inbox.take()
            waiting = {request: self.ladders[request] for request in self.pending}
            result = await step(Deciding.take_answers, AnswersInput(job=self._job, ladders=waiting, received=received, number=number))
            self.ladders.update(result.ladders)
            self.states.update({request: RequestState(verdict) for request, verdict in result.verdicts.items()})

    async def withdraw(self, why: str) -> None:
        """Give up what still waits."""
        if self.pending:
            await step(Deciding.withdraw, WithdrawInput(job=self._job, requests=self.pending, why=why))
            self.states.update(dict.fromkeys(self.pending, RequestState.WITHDRAWN))

    async def _climb(self) -> None:
        for request in self.pending:
            if self.ladders[request].respond_by <= workflow.now():
                result = await step(Deciding.climb, ClimbInput(job=self._job, ladder=self.ladders[request]))
                if result.ladder is None:
                    self.states[request] = RequestState.EXPIRED
                else:
                    self.ladders[request] = result.ladder


async def _woken_or_due(woken: Callable[[], bool], *, due: datetime) -> None:
    left = due - workflow.now()
    if left > timedelta(0):
        try:
            await workflow.wait_condition(woken, timeout=left)
        except TimeoutError:
            return


def _read(received: RawValue) -> Any:
    data = received.payload.data
    if len(data) > MAX_SIGNAL_BYTES:
        return {"unreadable": f"{len(data)} bytes"}
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return {"unreadable": "not JSON"}
