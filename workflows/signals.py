"""Queues for the content of signals to a job's workflow: requests to open, answers, credentials to revoke. Deterministic, no I/O."""

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
    from activities.revocation_activities import RevocationActivities
    from justenough.domain.contracts.workflow_messages import RevokeCredentialInput, RevokeInput, RevokeResult
    from justenough.domain.core.ids import CREDENTIAL_ID, REQUEST_ID, job_of
    from justenough.domain.jobs.spec import MAX_APPROVAL_REQUESTS_PER_JOB
    from justenough.domain.ledger.events import Event


class ApprovalRequests:
    """Ids of requests that wait to be opened, without duplicates, and at most as many as one job may make."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._seen: set[str] = set()
        self._waiting: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, request: object) -> None:
        """Queue one request of this job. Ignores other values, repeated ids, and requests beyond a job's limit."""
        if (
            isinstance(request, str)
            and REQUEST_ID.fullmatch(request) is not None
            and job_of(request) == self._job
            and request not in self._seen
            and len(self._seen) < MAX_APPROVAL_REQUESTS_PER_JOB
        ):
            self._seen.add(request)
            self._waiting.append(request)

    def pop(self) -> str:
        return self._waiting.popleft()


class ReceivedAnswers:
    """Approval answers that were sent to a job, numbered from 1 in order of arrival. An answer stays until it has been examined."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()
        self._examined = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, args: Sequence[RawValue]) -> None:
        """Keep the payload of one signal. We do not limit their number, because an ignored answer could be a withdrawal; Temporal limits
        it.
        """
        # Earlier releases ignored further answers, so that strangers could use up what a job examines.
        if self._examined + len(self._waiting) < options.MAX_ANSWERS or workflow.patched("examine-every-answer"):
            self._waiting.append(decode_signal(args))

    def first(self) -> tuple[int, tuple[Any, ...]]:
        """Return the number of the oldest answer that waits, and the payloads of a batch that begins with it."""
        count = min(len(self._waiting), options.MAX_ANSWERS_PER_BATCH)
        return self._examined + 1, tuple(self._waiting[place] for place in range(count))

    def drop(self, count: int) -> None:
        """Drop the oldest `count` answers: they have been examined."""
        for _ in range(count):
            self._waiting.popleft()
        self._examined += count


def decode_signal(args: Sequence[RawValue]) -> Any:
    """Return the JSON value of a signal, or {"unreadable": why} if it could not be passed on to an activity."""
    if len(args) != 1:
        return {"unreadable": f"{len(args)} arguments"}
    data = args[0].payload.data
    if len(data) > options.MAX_ANSWER_BYTES:
        return {"unreadable": f"{len(data)} bytes"}
    try:
        # Encode it as for an activity and measure it again: in this form it may be too large for a batch to fit a payload.
        converter = workflow.payload_converter()
        payload = converter.to_payload(json.loads(data))
        if len(payload.data) > options.MAX_ANSWER_BYTES:
            return {"unreadable": f"{len(payload.data)} bytes"}
        return converter.from_payload(payload)
    except Exception:  # noqa: BLE001 - nesting, lone surrogates, huge numbers: JSON that an activity could not receive
        return {"unreadable": "not JSON that Temporal can carry"}


class RevocationRequests:
    """Credentials to revoke while the job runs: a bounded number. A credential that cannot be revoked now is revoked when the job ends."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._waiting: deque[RevokeCredentialInput] = deque()
        self._taken = 0
        self.unrecorded: tuple[Event, ...] = ()
        """Events that the ledger could not record yet."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, credential: object) -> None:
        """Queue one credential of this job to be revoked. Ignores anything else, and more than options.MAX_REVOCATION_REQUESTS."""
        if isinstance(credential, str) and CREDENTIAL_ID.fullmatch(credential) is not None and job_of(credential) == self._job:
            self._enqueue(RevokeCredentialInput(job=self._job, credential=credential))

    def add_request(self, request: str) -> None:
        """Queue everything that was issued for one request of this job to be revoked."""
        self._enqueue(RevokeCredentialInput(job=self._job, credential=request, request=request))

    async def revoke_each(self) -> None:
        while self._waiting:
            await self._revoke(RevocationActivities.revoke_credential, self._waiting.popleft())

    async def revoke_everything(self) -> None:
        """Revoke everything that the job holds now, before its process is killed."""
        await self._revoke(RevocationActivities.revoke_job, RevokeInput(job=self._job, by="person", why="killed", attempts=1))

    async def _revoke(self, activity: Any, argument: RevokeCredentialInput | RevokeInput) -> None:
        try:
            result: RevokeResult = await workflow.execute_activity_method(
                activity, argument, task_queue=options.endings_queue(), **options.CUT
            )
            self.unrecorded += result.unrecorded
        except ActivityError:
            workflow.logger.warning("access could not be revoked yet; the job's end will revoke it")

    def _enqueue(self, revoke_input: RevokeCredentialInput) -> None:
        if self._taken < options.MAX_REVOCATION_REQUESTS:
            self._taken += 1
            self._waiting.append(revoke_input)
