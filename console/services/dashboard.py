"""The figures of the first page, read once for all viewers, so that a thousand open pages query the store as often as one. Blocking, for a thread."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from console.concurrency.caches import ThreadCache
from justenough.adapters.store import Store
from justenough.domain.readmodel.dashboard import CurrentCounts, PeriodTrend

COUNTS_TTL_S = 5.0
"""How long counts are used if nothing new is recorded; after a new entry they are read again immediately."""
TREND_TTL_S = 15.0
"""The chart may be this old: at its scale the difference is not visible."""
TREND_PERIOD = timedelta(hours=24)
TREND_POINTS = 96
"""Points of the chart, each the number of credentials alive."""


class DashboardFigures:
    """The current counts, and the last 24 hours."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._counts: ThreadCache[CurrentCounts] = ThreadCache()
        self._trends: ThreadCache[PeriodTrend] = ThreadCache()

    def current_counts(self) -> CurrentCounts:
        """Return the counts; they include everything that was recorded before this call."""
        position = self._store.ledger.head().position
        return self._counts.get(
            "now", lambda: self._store.dashboard.current_counts(datetime.now(UTC)), max_age_s=COUNTS_TTL_S, version=position
        )

    def course(self) -> PeriodTrend:
        """Return the trend of the last 24 hours, read at most TREND_TTL_S ago."""
        until = datetime.now(UTC)
        return self._trends.get(
            "day", lambda: self._store.dashboard.period_trend(until - TREND_PERIOD, until, TREND_POINTS), max_age_s=TREND_TTL_S
        )
