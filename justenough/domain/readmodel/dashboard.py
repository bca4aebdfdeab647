"""Models of the dashboard: current counts, trends and results of a period. No I/O, no clock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import JobState

MAX_ENDLESS_COUNT = 1000
HISTOGRAM_BOUNDS_S = (1, 10, 60, 300, 900, 3600, 14_400)
"""The upper bounds of a histogram's bars, in seconds; one more bar contains everything above."""


class LiveKind(Message):
    """Active credentials of one action: not verified as revoked or expired."""

    resource: str
    action: str
    count: int
    overdue: int
    """How many of them are past their end."""
    oldest: datetime
    """When the oldest one was issued."""


class OverdueCredential(Message):
    """A credential whose revocation is overdue: it may be active."""

    id: str
    resource: str
    action: str


class OverdueJob(Message):
    """A job whose revocation is overdue."""

    id: str
    name: str
    state: JobState
    since: datetime
    """When the revocation started."""
    failures: tuple[str, ...] = ()
    credentials: tuple[OverdueCredential, ...] = ()


class CurrentCounts(Message):
    """Exact counts of the current state. Their cost does not depend on how many jobs have ended."""

    live: tuple[LiveKind, ...]
    """By resource and action."""
    jobs: Mapping[JobState, int]
    """Jobs that have not ended, by state; states without jobs are left out."""
    ended: Mapping[JobState, int]
    """Jobs that ended in the last 24 hours, by state."""
    requests: Mapping[int, int]
    """Pending requests by current tier."""
    soonest: datetime | None
    """The earliest deadline of a pending request."""
    longest_wait: datetime | None = None
    """When the oldest pending request was made."""
    overdue: tuple[OverdueJob, ...]
    """Overdue revocations, oldest job first."""
    overdue_jobs: int
    """The number of all jobs whose revocation is overdue."""
    open_reviews: int
    endless_credentials: int = 0
    """Credentials that stay valid after their jobs until their owners change them: counted up to MAX_ENDLESS_COUNT, and not active."""

    @property
    def live_credentials(self) -> int:
        return sum(kind.count for kind in self.live)

    @property
    def overdue_credentials(self) -> int:
        """How many active credentials are past their end."""
        return sum(kind.overdue for kind in self.live)

    @property
    def oldest(self) -> datetime | None:
        """When the oldest active credential was issued; None if none is active."""
        return min((kind.oldest for kind in self.live), default=None)

    @property
    def open_requests(self) -> int:
        return sum(self.requests.values())


class AliveCount(Message):
    """The number of credentials that were active at a moment; None if the data does not reach that far back."""

    at: datetime
    count: int | None


class HistogramBar(Message):
    """The number of durations that are at most `seconds`, and longer than the previous bar's."""

    seconds: int | None
    """None for the last bar, which has no upper bound."""
    count: int


class DurationHistogram(Message):
    """The distribution of durations in a period."""

    count: int
    p50: float | None = None
    """Seconds. This and the next three fields are None if there are no durations."""
    p90: float | None = None
    p99: float | None = None
    longest: float | None = None
    bars: tuple[HistogramBar, ...]
    whole: bool
    """Whether it contains all durations of the period, not only the newest ones."""


class PeriodTrend(Message):
    """Trends of a period."""

    since: datetime
    until: datetime
    alive: tuple[AliveCount, ...]
    """Active credentials at the end of each of the period's equal parts."""
    approvals: DurationHistogram
    """From the request to the decision that settled it."""
    lifetimes: DurationHistogram
    """From a credential's issue to its verified end."""


class JobFilter(Message):
    """Which jobs a dashboard covers. An empty field filters nothing."""

    environment: str = ""
    agent: str = ""
    """The agent's name."""
    team: str = ""
    """The value of the label `team`."""
    requester_id: str = ""
    """Entity id of the launcher."""

    def __bool__(self) -> bool:
        return bool(self.environment or self.agent or self.team or self.requester_id)


ALL_JOBS = JobFilter()


class FilterValues(Message):
    """The values by which a dashboard can be filtered."""

    environments: tuple[str, ...]
    agents: tuple[str, ...]
    teams: tuple[str, ...]


class JobResults(Message):
    """How many jobs ended in one part of a period, by result."""

    begin: datetime
    succeeded: int = 0
    failed: int = 0
    """Failed, denied, timed out or lost."""
    stopped: int = 0
    """Cancelled or killed by a person."""

    @property
    def count(self) -> int:
        return self.succeeded + self.failed + self.stopped


def build_histogram(seconds: Sequence[float], *, whole: bool) -> DurationHistogram:
    """Return the histogram of these durations, with quantiles by nearest rank."""
    ordered = sorted(max(0.0, duration) for duration in seconds)
    ends = [*(bisect_right(ordered, bound) for bound in HISTOGRAM_BOUNDS_S), len(ordered)]
    bounds, begins = (*HISTOGRAM_BOUNDS_S, None), (0, *ends)
    bars = tuple(HistogramBar(seconds=bound, count=end - begin) for bound, begin, end in zip(bounds, begins, ends, strict=False))
    if not ordered:
        return DurationHistogram(count=0, bars=bars, whole=whole)
    # The least value that at least this share of the values does not exceed.
    p50, p90, p99 = (ordered[-(-len(ordered) * part // 100) - 1] for part in (50, 90, 99))
    return DurationHistogram(count=len(ordered), p50=p50, p90=p90, p99=p99, longest=ordered[-1], bars=bars, whole=whole)


def build_job_results(
    ended: Mapping[tuple[int, JobState], int], *, until: datetime, width: timedelta, parts: int
) -> tuple[JobResults, ...]:
    """Return the results of `parts` equal intervals of a period, oldest first; the last one contains `until`.

    `ended`: how many jobs ended in a state, by the interval's number since the epoch.
    """
    fields = {JobState.SUCCEEDED: "succeeded", JobState.CANCELLED: "stopped", JobState.KILLED: "stopped"}
    counts: dict[tuple[int, str], int] = {}
    for (part, state), count in ended.items():
        place = part, fields.get(state, "failed")
        counts[place] = counts.get(place, 0) + count
    newest = part_of(until, width)
    return tuple(
        JobResults(
            begin=datetime.fromtimestamp(part * width.total_seconds(), UTC),
            **{field: counts.get((part, field), 0) for field in ("succeeded", "failed", "stopped")},
        )
        for part in range(newest - parts + 1, newest + 1)
    )


def part_of(moment: datetime, width: timedelta) -> int:
    """Return the number, counted from the epoch, of the interval of length `width` that contains a moment."""
    return int(moment.timestamp() // width.total_seconds())


def reconstruct_alive_counts(
    ends: Sequence[datetime], *, now: int, begun: Sequence[datetime], ended: Sequence[datetime], known_since: datetime | None
) -> tuple[AliveCount, ...]:
    """Return how many credentials were active at each of the `ends`, which ascend.

    `now`: the count after everything in `begun` and `ended`. `known_since`: the time before which `begun` and `ended` are incomplete; None if
    they are complete.
    """
    births, deaths = sorted(begun), sorted(ended)
    counts = (now - (len(births) - bisect_right(births, end)) + (len(deaths) - bisect_right(deaths, end)) for end in ends)
    return tuple(
        AliveCount(at=end, count=count if known_since is None or end >= known_since else None)
        for end, count in zip(ends, counts, strict=True)
    )
