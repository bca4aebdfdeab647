"""The figures of the first page, read once for all who look: a thousand open pages ask the store no more often than one that always asks. Blocking, for a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from justenough.adapters.store import Store
from justenough.domain.readmodel.dashboard import CurrentCounts, PeriodTrend

T = TypeVar("T")

COUNTS_TTL_S = 5.0
"""Seconds for which counts serve while nothing happens; what happens is read at once."""
COURSE_TTL_S = 15.0
"""Seconds for which a day's course serves, whatever happens: it is an hour per finger's breadth."""
COURSE_PERIOD = timedelta(hours=24)
COURSE_POINTS = 96
"""Of a day, each with its number of credentials alive."""


@dataclass
class CachedReading(Generic[T]):
    """One reading, and at which position of the ledger and when it began."""

    ttl_s: float
    read: Callable[[], T]
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _last: tuple[int, float, T] | None = None

    def value_since(self, position: int) -> T:
        """Return a reading that began when the ledger had come at least this far. Those who ask meanwhile wait for one and share it."""
        with self._lock:
            began = time.monotonic()
            if self._last is None or self._last[0] < position or began - self._last[1] > self.ttl_s:
                self._last = position, began, self.read()
            return self._last[2]


class DashboardFigures:
    """What is so now, and how the last day went."""

    def __init__(self, store: Store, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store, self._now = store, now
        self._counts = CachedReading(COUNTS_TTL_S, lambda: store.dashboard.current_counts(now()))
        self._course = CachedReading(COURSE_TTL_S, self._read_course)

    def current_counts(self) -> CurrentCounts:
        """Return the counts, with everything in them that was recorded before this was asked."""
        return self._counts.value_since(self._store.ledger.head().position)

    def course(self) -> PeriodTrend:
        """Return how the last 24 hours went, as read at most some seconds ago."""
        return self._course.value_since(0)

    def _read_course(self) -> PeriodTrend:
        until = self._now()
        return self._store.dashboard.period_trend(until - COURSE_PERIOD, until, COURSE_POINTS)
