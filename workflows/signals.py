"""What a running job's session tells its workflow: requests that people must answer. Their content is looked up, not believed. Deterministic, no I/O."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from typing import Any

from temporalio import workflow
from temporalio.common import RawValue
from temporalio.exceptions import ActivityError

from workflows import options

with workflow.unsafe.imports_passed_through():
    from justenough.domain.core.ids import REQUEST_ID, job_of
    from justenough.domain.jobs.resource_limits import MAX_APPROVAL_REQUESTS_PER_JOB


class ApprovalRequests:
    """The ids of requests that wait to be opened, each once and within bounds."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._seen: set[str] = set()
        self._waiting: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, request: object) -> None:
        """Take one request of this job; ignore anything else, what came before, and all past what a job may ask people for."""
        if (
            isinstance(request, str)
            and self._is_request_of_job(request)
            and request not in self._seen
            and len(self._seen) < MAX_APPROVAL_REQUESTS_PER_JOB
        ):
            self._seen.add(request)
            self._waiting.append(request)

    def pop(self) -> str:
        """Return the first that waits."""
        return self._waiting.popleft()

    def _is_request_of_job(self, request: str) -> bool:
        return REQUEST_ID.fullmatch(request) is not None and job_of(request) == self._job


class ReceivedAnswers:
    """The answers that a job was sent, numbered from 1 as they came; one leaves only once it has been examined."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self._examined = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, args: Sequence[RawValue]) -> None:
        """Keep what one signal carried; past what a job examines, ignore it."""
        if self._examined + len(self._waiting) < options.MAX_ANSWERS:
            self._waiting.append(decode_signal(args))

    def first(self) -> tuple[int, tuple[Any, ...]]:
        """Return the number of the first answer that waits, and what some of them carried, that one first."""
        count = min(len(self._waiting), options.MAX_ANSWERS_PER_BATCH)
        return self._examined + 1, tuple(self._waiting[place] for place in range(count))

    def drop(self, count: int) -> None:
        """Let the first ones go: they have been examined."""
        for _ in range(count):
            self._waiting.popleft()
        self._examined += count


def decode_signal(args: Sequence[RawValue]) -> Any:
    """Return the one JSON value that a signal carried, or {"unreadable": why}: what no activity could be handed must never reach one."""
    if len(args) != 1:
        return {"unreadable": f"{len(args)} arguments"}
    data = args[0].payload.data
    if len(data) > options.MAX_ANSWER_BYTES:
        return {"unreadable": f"{len(data)} bytes"}
    try:
        return _round_trip(json.loads(data))
    except Exception:  # noqa: BLE001 - depth, lone surrogates, huge numbers: whatever does not survive the journey is not readable
        return {"unreadable": "not JSON that travels"}


def _round_trip(value: Any) -> Any:
    """Return a value as an activity will get it; raise where it would get none, or one so large that a batch may not fit a payload."""
    converter = workflow.payload_converter()
    payload = converter.to_payload(value)
    if len(payload.data) > options.MAX_ANSWER_BYTES:
        return {"unreadable": f"{len(payload.data)} bytes"}
    return converter.from_payload(payload)


with workflow.unsafe.imports_passed_through():
    from activities.revocation_activities import RevocationActivities
    from justenough.domain.contracts.workflow_messages import RevokeCredentialInput, RevokeInput
    from justenough.domain.core.ids import CREDENTIAL_ID, job_of
    from justenough.domain.ledger.events import Event


class RevocationRequests:
    """Obeyed once each and within bounds: what they cannot do, the job's ending does."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._waiting: deque[str] = deque()
        self._taken = 0
        self.unrecorded: tuple[Event, ...] = ()
        """What the ledger could not take meanwhile."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, credential: object) -> None:
        """Take the wish to end one credential of this job; ignore anything else, and all past what a job obeys."""
        if isinstance(credential, str) and self._is_credential_of_job(credential):
            self._enqueue(credential)

    def add_request(self, request: str) -> None:
        """Take the wish to end all that was issued for one request of this job."""
        self._enqueue(request)

    async def revoke_each(self) -> None:
        """End each credential that is to end."""
        while self._waiting:
            wanted = RevokeCredentialInput(job=self._job, credential=self._waiting.popleft())
            try:
                result = await workflow.execute_activity_method(
                    RevocationActivities.revoke_credential, wanted, task_queue=options.endings_queue(), **options.CUT
                )
                self.unrecorded += result.unrecorded
            except ActivityError:
                workflow.logger.warning("a credential could not be revoked yet; the job's ending will")

    async def revoke_everything(self) -> None:
        """End all that the job holds now, before its process is killed."""
        wanted = RevokeInput(job=self._job, by="person", why="killed", attempts=1)
        try:
            result = await workflow.execute_activity_method(
                RevocationActivities.revoke_job, wanted, task_queue=options.endings_queue(), **options.CUT
            )
            self.unrecorded += result.unrecorded
        except ActivityError:
            workflow.logger.warning("access could not be cut yet; the compensation will")

    def _enqueue(self, target: str) -> None:
        if self._taken < options.MAX_REVOCATION_REQUESTS:
            self._taken += 1
            self._waiting.append(target)

    def _is_credential_of_job(self, credential: str) -> bool:
        return CREDENTIAL_ID.fullmatch(credential) is not None and job_of(credential) == self._job
