"""What a running job's session tells its workflow: requests that people must answer. Their content is looked up, not believed. Deterministic, no I/O."""

from __future__ import annotations

from collections import deque

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from justenough.ids import REQUEST_ID, job_of
    from justenough.limits import ASKED


class Asks:
    """The ids of requests that wait to be opened, each once and within bounds."""

    def __init__(self, job: str) -> None:
        self._job = job
        self._seen: set[str] = set()
        self._waiting: deque[str] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def put(self, request: object) -> None:
        """Take one request of this job; ignore anything else, what came before, and all past what a job may ask people for."""
        if isinstance(request, str) and self._is_ours(request) and request not in self._seen and len(self._seen) < ASKED:
            self._seen.add(request)
            self._waiting.append(request)

    def take(self) -> str:
        """Return the first that waits."""
        return self._waiting.popleft()

    def _is_ours(self, request: str) -> bool:
        return REQUEST_ID.fullmatch(request) is not None and job_of(request) == self._job
