"""Remembers, in this process, how the revoking of each job, or of one credential alone, goes. No I/O.

Since when it goes on, since when it looks clean, how often it failed.
Forgetting costs time, never safety: the next clean look is then a first one again.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from datetime import datetime, timedelta

SECOND_CHECK_DELAY = timedelta(seconds=15)
"""Longer than Vault lets any issue take (default_max_request_duration 10 s): what was in flight has landed by then."""
MAX_TRACKED_REVOCATIONS = 10_000


@dataclass(slots=True)
class _RevocationCourse:
    began: datetime
    clean_since: float | None = None
    """By the clock that nobody can set."""
    failed: int = 0


class RevocationTracker:
    """The course of each revocation that is not confirmed yet. Thread-safe."""

    def __init__(self) -> None:
        self._courses: dict[str, _RevocationCourse] = {}
        self._lock = threading.Lock()

    def start_time(self, job: str, *, now: datetime) -> datetime:
        """Return when the revocation that now goes on began: now, where none did."""
        with self._lock:
            return self._course(job, now).began

    def record_clean_check(self, job: str, *, started: float, ended: float, now: datetime) -> timedelta | None:
        """Note a clean look; return in how long the second one is due, None where this was it. `started`, `ended`: ticks."""
        with self._lock:
            course = self._course(job, now)
            if course.clean_since is None:
                # What is in flight can have begun until the tokens died, which this look saw at its end.
                course.clean_since = ended
            due = course.clean_since + SECOND_CHECK_DELAY.total_seconds()
            return None if started >= due else timedelta(seconds=due - ended)

    def record_failed_attempt(self, job: str, *, now: datetime) -> int:
        """Note an attempt that left something alive or unseen; return how many there were."""
        with self._lock:
            course = self._course(job, now)
            course.clean_since = None
            course.failed += 1
            return course.failed

    def attempt_number(self, job: str, *, now: datetime) -> int:
        """Return which attempt in a row this is: the first, where none has failed."""
        with self._lock:
            return self._course(job, now).failed + 1

    def forget(self, job: str) -> None:
        """Forget a job that is confirmed: what is found of it later is a revocation of its own."""
        with self._lock:
            self._courses.pop(job, None)

    def _course(self, job: str, now: datetime) -> _RevocationCourse:
        if job not in self._courses and len(self._courses) >= MAX_TRACKED_REVOCATIONS:
            del self._courses[next(iter(self._courses))]
        return self._courses.setdefault(job, _RevocationCourse(now))
