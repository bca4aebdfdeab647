"""The figures of the first page, read once for all viewers: a thousand open pages query the store no more often than one. Blocking, for a thread."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from console.concurrency.caches import ThreadCache
from justenough.adapters.store import Store
from justenough.domain.readmodel.dashboard import CurrentCounts, PeriodTrend

COUNTS_TTL_S = 5.0
"""How long counts are used while nothing new is recorded; anything new is read at once."""
COURSE_TTL_S = 15.0
"""The 24-hour chart may be this old: at its scale nobody can tell."""
COURSE_PERIOD = timedelta(hours=24)
COURSE_POINTS = 96
"""Points of the chart, each the number of credentials alive."""


class DashboardFigures:
    """The current counts, and the last 24 hours."""

    def __init__(self, store: Store, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._store, self._now = store, now
        self._counts: ThreadCache[CurrentCounts] = ThreadCache()
        self._trends: ThreadCache[PeriodTrend] = ThreadCache()

    def current_counts(self) -> CurrentCounts:
        """Return the counts; they include everything that was recorded before this call."""
        position = self._store.ledger.head().position
        return self._counts.get("now", lambda: self._store.dashboard.current_counts(self._now()), max_age_s=COUNTS_TTL_S, version=position)

    def course(self) -> PeriodTrend:
        """Return the trend of the last 24 hours, read at most COURSE_TTL_S ago."""

        def read() -> PeriodTrend:
            until = self._now()
            return self._store.dashboard.period_trend(until - COURSE_PERIOD, until, COURSE_POINTS)

        return self._trends.get("day", read, max_age_s=COURSE_TTL_S)
