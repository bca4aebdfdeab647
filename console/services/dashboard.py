"""The figures of the dashboard, read once for all viewers, so that a thousand open pages query the store as often as one. Blocking, for a thread."""

from __future__ import annotations

from datetime import timedelta

from console.concurrency.caches import ThreadCache
from justenough.domain.ledger.overdue import MAX_REPORT_AGE
from justenough.domain.readmodel.attention import AttentionItem, AttentionKind, with_acknowledgements
from justenough.domain.readmodel.dashboard import ALL_JOBS, CurrentCounts, FilterValues, JobFilter, JobResults, PeriodTrend
from justenough.domain.readmodel.failed_systems import FailedSystem, group_by_system
from justenough.domain.readmodel.model_use import PeriodModelUse
from justenough.services.dependencies import Deps

COUNTS_TTL_S = 5.0
"""How long counts are used if nothing new is recorded; after a new entry they are read again immediately."""
TREND_TTL_S = 15.0
"""The charts may be this old: at their scale the difference is not visible."""
TREND_PERIOD = timedelta(hours=24)
TREND_POINTS = 96
"""Number of points in the chart; each is a count of active credentials."""
RESULT_WIDTH = timedelta(minutes=15)
RESULT_BARS = TREND_PERIOD // RESULT_WIDTH


class DashboardFigures:
    """The current counts, what needs attention, the last 24 hours, and the use of models."""

    def __init__(self, deps: Deps) -> None:
        self._store, self._now = deps.store, deps.now
        self._counts: ThreadCache[CurrentCounts] = ThreadCache()
        self._attention: ThreadCache[tuple[AttentionItem, ...]] = ThreadCache()
        self._results: ThreadCache[tuple[JobResults, ...]] = ThreadCache()
        self._trends: ThreadCache[PeriodTrend] = ThreadCache()
        self._values: ThreadCache[FilterValues] = ThreadCache()
        self._model_use: ThreadCache[PeriodModelUse] = ThreadCache()

    def current_counts(self, only: JobFilter = ALL_JOBS) -> CurrentCounts:
        """Return the current counts, including everything that was recorded before this call."""
        position = self._store.ledger.head().position
        return self._counts.get(
            only.model_dump_json(),
            lambda: self._store.dashboard.current_counts(self._now(), only),
            max_age_s=COUNTS_TTL_S,
            version=position,
        )

    def attention(self, only: JobFilter = ALL_JOBS) -> tuple[AttentionItem, ...]:
        """Return what needs attention, with acknowledgements, including everything that was recorded before this call."""
        position = self._store.ledger.head().position
        return self._attention.get(only.model_dump_json(), lambda: self._read_attention(only), max_age_s=COUNTS_TTL_S, version=position)

    def results(self, only: JobFilter = ALL_JOBS) -> tuple[JobResults, ...]:
        """Return the job results of the last 48 hours by quarter of an hour, oldest first, read at most TREND_TTL_S ago."""
        return self._results.get(
            only.model_dump_json(),
            lambda: self._store.dashboard.job_results(until=self._now(), width=RESULT_WIDTH, parts=2 * RESULT_BARS, only=only),
            max_age_s=TREND_TTL_S,
        )

    def course(self) -> PeriodTrend:
        """Return the trend of the last 24 hours, read at most TREND_TTL_S ago."""
        until = self._now()
        return self._trends.get(
            "day", lambda: self._store.dashboard.period_trend(until - TREND_PERIOD, until, TREND_POINTS), max_age_s=TREND_TTL_S
        )

    def filter_values(self) -> FilterValues:
        """Return what the dashboard can be filtered by, read at most TREND_TTL_S ago."""
        return self._values.get("values", lambda: self._store.dashboard.filter_values(self._now()), max_age_s=TREND_TTL_S)

    def model_use(self, period: timedelta) -> PeriodModelUse:
        """Return the use of models by all jobs in a period that ends now, read at most TREND_TTL_S ago."""
        return self._model_use.get(str(period), lambda: self._store.model_use.period_use(self._now() - period), max_age_s=TREND_TTL_S)

    def _read_attention(self, only: JobFilter) -> tuple[AttentionItem, ...]:
        store = self._store.attention
        overdue = () if only else tuple(_to_item(system) for system in group_by_system(self.current_counts().overdue))
        items = (*overdue, *store.items(only, now=self._now(), worker_silence=MAX_REPORT_AGE))
        return with_acknowledgements(items, store.acknowledgements(item.key for item in items))


def _to_item(system: FailedSystem) -> AttentionItem:
    credentials, jobs = len(system.credentials), len(system.jobs)
    return AttentionItem(
        key=f"{AttentionKind.OVERDUE}/{system.name}",
        kind=AttentionKind.OVERDUE,
        subject=system.name,
        detail=f"{credentials} credential{'s' * (credentials != 1)} of {jobs} job{'s' * (jobs != 1)} may be active. {system.advice}",
        since=system.since,
    )
