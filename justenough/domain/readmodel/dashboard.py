"""What is so now and how the last hours went, as pages draw it; and what a text that somebody typed names. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal

from justenough.domain.core.base_model import Message
from justenough.domain.jobs.states import JobState

HISTOGRAM_BOUNDS_S = (1, 10, 60, 300, 900, 3600, 14_400)
"""Seconds: where the bars of a spread end. One more holds what took longer."""


class LiveKind(Message):
    """Credentials of one action that are not shown to be dead."""

    resource: str
    action: str
    count: int
    overdue: int
    """How many of them were to be dead already."""
    oldest: datetime
    """When the first of them was issued."""


class OverdueJob(Message):
    """A job whose revocation is overdue."""

    id: str
    name: str
    state: JobState
    since: datetime
    """When the revoking that is not confirmed began."""
    failures: tuple[str, ...] = ()


class CurrentCounts(Message):
    """Counts of what is open now. All exact, and cheap however much is over."""

    live: tuple[LiveKind, ...]
    """By resource and action."""
    jobs: Mapping[JobState, int]
    """Those that have not ended, by state; states of none are not there."""
    ended: Mapping[JobState, int]
    """Those that ended in the last 24 hours."""
    requests: Mapping[int, int]
    """Those that wait for people, by the tier that answers now."""
    soonest: datetime | None
    """When the first of these tiers runs out of time."""
    overdue: tuple[OverdueJob, ...]
    """The first of them, those submitted first."""
    overdue_jobs: int
    """All of them."""
    open_reviews: int
    """Of broken glass."""

    @property
    def live_credentials(self) -> int:
        """How many are not shown to be dead."""
        return sum(kind.count for kind in self.live)

    @property
    def overdue_credentials(self) -> int:
        """How many of these were to be dead already."""
        return sum(kind.overdue for kind in self.live)

    @property
    def oldest(self) -> datetime | None:
        """When the first of them was issued."""
        return min((kind.oldest for kind in self.live), default=None)

    @property
    def open_requests(self) -> int:
        """How many wait for people."""
        return sum(self.requests.values())


class AliveCount(Message):
    """How many credentials were alive at a moment; None where too much happened since to look that far back."""

    at: datetime
    count: int | None


class HistogramBar(Message):
    """How many took at most so long, and longer than the bar before."""

    seconds: int | None
    """None for the last bar, which has no end."""
    count: int


class DurationHistogram(Message):
    """How long something took, over the newest ones of a period."""

    count: int
    p50: float | None = None
    """Seconds; None where there are none, as below."""
    p90: float | None = None
    p99: float | None = None
    longest: float | None = None
    bars: tuple[HistogramBar, ...]
    whole: bool
    """Whether that is all of the period; else the newest so many."""


class PeriodTrend(Message):
    """How a period went."""

    since: datetime
    until: datetime
    alive: tuple[AliveCount, ...]
    """Credentials, at the end of each of the period's equal parts."""
    approvals: DurationHistogram
    """From asking to the answer that settled it."""
    lifetimes: DurationHistogram
    """From a credential's issue to when it was shown to be dead."""


class SearchHit(Message):
    """Something that a text names, and the job that it belongs to."""

    kind: Literal["job", "request", "credential", "entry"]
    id: str
    job: str
    """`-` for an entry that belongs to none."""
    name: str = ""
    """The job's; empty where there is no such job."""


def build_histogram(seconds: Sequence[float], *, whole: bool) -> DurationHistogram:
    """Return how durations spread; quantiles by nearest rank."""
    ordered = sorted(max(0.0, one) for one in seconds)
    bars, begin = [], 0
    for bound in (*HISTOGRAM_BOUNDS_S, None):
        end = len(ordered) if bound is None else sum(one <= bound for one in ordered)
        bars.append(HistogramBar(seconds=bound, count=end - begin))
        begin = end
    if not ordered:
        return DurationHistogram(count=0, bars=tuple(bars), whole=whole)
    p50, p90, p99 = (ordered[min(len(ordered) - 1, len(ordered) * part // 100)] for part in (50, 90, 99))
    return DurationHistogram(count=len(ordered), p50=p50, p90=p90, p99=p99, longest=ordered[-1], bars=tuple(bars), whole=whole)


def reconstruct_alive_counts(
    ends: Sequence[datetime], *, now: int, begun: Sequence[datetime], over: Sequence[datetime], known_since: datetime | None
) -> tuple[AliveCount, ...]:
    """Return how many were alive at each of the `ends`, which ascend.

    `now`: how many are alive after everything in `begun` and `over`. `known_since`: before it these are not whole; None where they are.
    """
    births, deaths = sorted(begun), sorted(over)
    found, count = [], now
    for end in reversed(ends):
        while births and births[-1] > end:
            births.pop()
            count -= 1
        while deaths and deaths[-1] > end:
            deaths.pop()
            count += 1
        found.append(AliveCount(at=end, count=count if known_since is None or end >= known_since else None))
    return tuple(reversed(found))
