"""What people ask of a job that runs, beside its end: end one credential, cut all access. Deterministic, no I/O."""

from __future__ import annotations

from collections import deque

from temporalio import workflow
from temporalio.exceptions import ActivityError

from workflows import options

with workflow.unsafe.imports_passed_through():
    from activities.ending import Ending
    from justenough.events import Event
    from justenough.ids import CREDENTIAL_ID, job_of
    from justenough.messages import RevokeCredentialInput, RevokeInput


class Wishes:
    """Obeyed once each and within bounds: what they cannot do, the job's ending does."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._waiting: deque[str] = deque()
        self._taken = 0
        self.unrecorded: tuple[Event, ...] = ()
        """What the ledger could not take meanwhile."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, credential: object) -> None:
        """Take the wish to end one credential of this job; ignore anything else, and all past what a job obeys."""
        if isinstance(credential, str) and self._is_ours(credential):
            self._take(credential)

    def end_what_came_of(self, request: str) -> None:
        """Take the wish to end all that was issued for one request of this job."""
        self._take(request)

    async def obey(self) -> None:
        """End each credential that is to end."""
        while self._waiting:
            wanted = RevokeCredentialInput(job=self._job, credential=self._waiting.popleft())
            try:
                result = await workflow.execute_activity_method(
                    Ending.revoke_credential, wanted, task_queue=options.endings_queue(), **options.CUT
                )
                self.unrecorded += result.unrecorded
            except ActivityError:
                workflow.logger.warning("a credential could not be revoked yet; the job's ending will")

    async def cut(self) -> None:
        """End all that the job holds now, before its process is killed."""
        wanted = RevokeInput(job=self._job, by="person", why="killed", attempts=1)
        try:
            result = await workflow.execute_activity_method(Ending.revoke_job, wanted, task_queue=options.endings_queue(), **options.CUT)
            self.unrecorded += result.unrecorded
        except ActivityError:
            workflow.logger.warning("access could not be cut yet; the compensation will")

    def _take(self, wanted: str) -> None:
        if self._taken < options.REVOCATIONS_WANTED:
            self._taken += 1
            self._waiting.append(wanted)

    def _is_ours(self, credential: str) -> bool:
        return CREDENTIAL_ID.fullmatch(credential) is not None and job_of(credential) == self._job
