"""In-memory progress of each revocation, of a job or a single credential: its start, first clean check and failures. No I/O.

Losing the progress costs time, never safety: the next clean check then counts as the first.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

SECOND_CHECK_DELAY = timedelta(seconds=15)
"""Longer than any request to Vault may take (default_max_request_duration 10 s), so that all requests in flight have ended."""
MAX_TRACKED_REVOCATIONS = 10_000


@dataclass(slots=True)
class _RevocationProgress:
    began: datetime
    clean_since: float | None = None
    """In ticks (`Deps.ticks`)."""
    dead_since: datetime | None = None
    """When a check first found nothing alive, with no later check finding anything alive; set even if this could not be recorded."""
    failed: int = 0
    proven_at: datetime | None = None
    """The job's newest proof of an earlier revocation, once read."""


class RevocationTracker:
    """The progress of each unconfirmed revocation. Thread-safe."""

    def __init__(self) -> None:
        self._progress: dict[str, _RevocationProgress] = {}
        self._lock = threading.Lock()

    def start_time(self, job: str, *, now: datetime) -> datetime:
        """Return when the current revocation began, or start one now."""
        with self._lock:
            return self._progress_of(job, now).began

    def record_clean_check(self, job: str, *, started: float, ended: float, now: datetime) -> timedelta | None:
        """Record a clean check. Return the time until the second one is due, or None if this was the second. `started`, `ended`: ticks."""
        with self._lock:
            progress = self._progress_of(job, now)
            if progress.clean_since is None:
                # Requests may have begun until the tokens died, and this check only shows that they were dead at its end.
                progress.clean_since = ended
            due = progress.clean_since + SECOND_CHECK_DELAY.total_seconds()
            return None if started >= due else timedelta(seconds=due - ended)

    def record_failed_attempt(self, job: str, *, now: datetime) -> int:
        """Record an attempt that left a credential alive or unverified. Return the number of such attempts."""
        with self._lock:
            progress = self._progress_of(job, now)
            progress.clean_since = None
            progress.failed += 1
            return progress.failed

    def record_earlier_failure(self, job: str, *, now: datetime) -> None:
        """Record that a worker, perhaps another one, has failed before, so that the next failure counts as the second."""
        with self._lock:
            progress = self._progress_of(job, now)
            progress.failed = max(progress.failed, 1)

    def record_proof(self, job: str, proven_at: datetime | None, *, now: datetime) -> None:
        """Record the time of the newest proof in the store (None: not read). If another worker has added one, start another revocation."""
        if proven_at is None:
            return
        with self._lock:
            known = self._progress_of(job, now).proven_at or proven_at
            if proven_at > known:
                del self._progress[job]
            self._progress_of(job, now).proven_at = max(proven_at, known)

    def record_inspection(self, job: str, *, dead: bool, now: datetime) -> datetime | None:
        """Record whether a complete check found nothing alive.

        Return the time since which every check has found nothing alive; None if this one found something.
        """
        with self._lock:
            progress = self._progress_of(job, now)
            progress.dead_since = (progress.dead_since or now) if dead else None
            return progress.dead_since

    def attempt_number(self, job: str, *, now: datetime) -> int:
        """Return the number of the current attempt, 1 if none has failed."""
        with self._lock:
            return self._progress_of(job, now).failed + 1

    def forget(self, job: str) -> None:
        """Forget a confirmed revocation. A credential that is found later starts a new revocation."""
        with self._lock:
            self._progress.pop(job, None)

    def _progress_of(self, job: str, now: datetime) -> _RevocationProgress:
        if job not in self._progress and len(self._progress) >= MAX_TRACKED_REVOCATIONS:
            del self._progress[next(iter(self._progress))]
        return self._progress.setdefault(job, _RevocationProgress(now))
