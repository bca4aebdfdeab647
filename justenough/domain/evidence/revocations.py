"""How long revoking took in the period, and where it was overdue. What is overdue now is `standing`'s. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from justenough.domain.evidence.report import Status
from justenough.domain.evidence.statistics import Distribution, EntryFact, EntrySample, MetricResult, seconds_between, status_above

STARTED = "revocation.started"
CONFIRMED = "revocation.confirmed"
OVERDUE = ("revocation.overdue", "credential.overdue")
MAX_P95_S = 60.0
"""Seconds that revoking takes at the 95th percentile at most."""


class RevocationMetrics:
    """Follows each job's revoking from its first attempt to its proof."""

    def __init__(self) -> None:
        self._since: dict[str, datetime] = {}
        self._took = Distribution()
        self._longest: float | None = None
        """Of the revocations that were overdue and are confirmed."""
        self._late: set[str] = set()
        """Jobs that were overdue; grows with those alone."""
        self._confirmed, self._overdue = EntrySample(), EntrySample()

    @property
    def handlers(self) -> Mapping[str, Callable[[EntryFact], None]]:
        """What each type of entry means here."""
        return {STARTED: self._start, CONFIRMED: self._confirm, **dict.fromkeys(OVERDUE, self._fail)}

    def metric_results(self, *, until: datetime) -> Iterator[MetricResult]:
        """Yield its lines."""
        figures = self._took.figures()
        slow = figures["p95_seconds"]
        status = Status.ATTENTION if isinstance(slow, float) and slow > MAX_P95_S else Status.OK
        yield MetricResult("revocation.time", {**figures, "open_at_the_end": len(self._since)}, status, self._confirmed, (CONFIRMED,))
        still = [seconds_between(self._since[job], until) for job in self._late & self._since.keys()]
        longest = max([*still, *([] if self._longest is None else [self._longest])], default=None)
        jobs = len(self._late)
        yield MetricResult(
            "revocation.overdue", {"jobs": jobs, "longest_seconds": longest}, status_above(jobs, Status.ATTENTION), self._overdue, OVERDUE
        )

    def _start(self, fact: EntryFact) -> None:
        self._since.setdefault(fact.job, fact.at)

    def _confirm(self, fact: EntryFact) -> None:
        since = self._since.pop(fact.job, None)
        if since is None:
            return
        self._confirmed.add(fact.id)
        self._took.add(seconds_between(since, fact.at))
        if fact.job in self._late:
            self._longest = max(self._longest or 0.0, seconds_between(since, fact.at))

    def _fail(self, fact: EntryFact) -> None:
        self._late.add(fact.job)
        self._overdue.add(fact.id)
