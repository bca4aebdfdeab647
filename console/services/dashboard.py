"""The figures of the dashboard and what needs attention, read once for all viewers, so that a thousand open pages query the store as often
as one; and acknowledging what needs attention. Blocking, for a thread.
"""

from __future__ import annotations

from datetime import timedelta

from console.auth.authorization import STOPPING_ROLES, Caller
from console.concurrency.caches import ThreadCache
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, NotFound, Problem
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType
from justenough.domain.ledger.overdue import MAX_REPORT_AGE
from justenough.domain.readmodel.attention import Acknowledgement, AttentionItem, AttentionKind, with_acknowledgements
from justenough.domain.readmodel.dashboard import ALL_JOBS, CurrentCounts, FilterValues, JobFilter, JobResults, PeriodTrend
from justenough.domain.readmodel.failed_systems import FailedSystem, group_by_system
from justenough.domain.readmodel.model_use import PeriodModelUse
from justenough.services.dependencies import Deps
from justenough.services.ledger_events import event_of_person

COUNTS_TTL_S = 5.0
"""How long counts are used if nothing new is recorded; after a new entry they are read again immediately."""
TREND_TTL_S = 15.0
"""The charts may be this old: at their scale the difference is not visible."""
MAX_FILTERS = 100
"""Number of filters, such as one team, whose figures stay in memory: about 100 KB each."""
TREND_PERIOD = timedelta(hours=24)
TREND_POINTS = 96
"""Number of points in the chart; each is a count of active credentials."""
RESULT_WIDTH = timedelta(minutes=15)
RESULT_BARS = TREND_PERIOD // RESULT_WIDTH
MAX_NOTE_CHARS = 500


class DashboardFigures:
    """The current counts, what needs attention, the last 24 hours, and the use of models."""

    def __init__(self, deps: Deps) -> None:
        self._store, self._now = deps.store, deps.now
        self._counts: ThreadCache[CurrentCounts] = ThreadCache(max_entries=MAX_FILTERS)
        self._attention: ThreadCache[tuple[AttentionItem, ...]] = ThreadCache(max_entries=MAX_FILTERS)
        self._results: ThreadCache[tuple[JobResults, ...]] = ThreadCache(max_entries=MAX_FILTERS)
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

    def trend(self) -> PeriodTrend:
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


def visible_items(caller: Caller, figures: DashboardFigures, only: JobFilter = ALL_JOBS) -> tuple[AttentionItem, ...]:
    """Return the items that a person may read: those about jobs that they may read; about the installation, if they may read all jobs."""
    # The number of items of a kind is limited, so those of other people must not be among them.
    items = figures.attention(only.model_copy(update={"requester_id": caller.requester_filter or ""}))
    # An item about the installation has no requester.
    return tuple(item for item in items if caller.can_read_jobs_of(item.requester_id))


def acknowledge(deps: Deps, figures: DashboardFigures, caller: Caller, key: str, note: str, *, only: JobFilter = ALL_JOBS) -> AttentionItem:
    """Record that the caller takes care of an item, and return it. `only`: the filter with which the item was listed.

    Raises NotFound if it no longer needs attention, Forbidden, InvalidInput.
    """
    if len(note) > MAX_NOTE_CHARS:
        raise InvalidInput("acknowledgement", (Problem("note", f"is longer than {MAX_NOTE_CHARS} characters; shorten it"),))
    item = next((item for item in visible_items(caller, figures, only) if item.key == key), None)
    if item is None:
        raise NotFound("this no longer needs attention, or you may not see it")
    if item.job:
        caller.require_right_to_stop(item.requester_id)
    else:
        caller.require(*STOPPING_ROLES)
    now, person, kind = deps.now(), caller.person, EventType.ATTENTION_ACKNOWLEDGED
    about = digest_of({"item": key, "person": person.id, "at": now.isoformat()}).removeprefix("sha256:")[:24]
    event = event_of_person(person, kind, item.job or UNATTRIBUTED_CHAIN, at=now, about=about, item=key, note=note)
    deps.store.ledger.append([event])
    answer = Acknowledgement(item=key, person=person.name, person_id=person.id, note=note, at=now)
    return item.model_copy(update={"acknowledged": answer})


def _to_item(system: FailedSystem) -> AttentionItem:
    credentials, jobs = len(system.credentials), len(system.jobs)
    return AttentionItem(
        key=f"{AttentionKind.OVERDUE}/{system.name}",
        kind=AttentionKind.OVERDUE,
        subject=system.name,
        detail=f"{credentials} credential{'s' * (credentials != 1)} of {jobs} job{'s' * (jobs != 1)} may be active. {system.advice}",
        since=system.since,
    )
