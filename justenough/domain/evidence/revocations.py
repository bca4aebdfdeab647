"""Counts the revocations of the period: how long they took, and which were overdue. `current_state` counts those that are overdue now.

No I/O, no clock.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import ClassVar

from justenough.domain.evidence.credentials import END_EVENTS
from justenough.domain.evidence.report import Status
from justenough.domain.evidence.statistics import Distribution, EntryFact, MetricResult, Sample, seconds_between, status_above
from justenough.domain.ledger.events import EventType, time_done

OVERDUE = (EventType.REVOCATION_OVERDUE, EventType.CREDENTIAL_OVERDUE)
MAX_P95_S = 60.0
"""A higher 95th percentile of the revocation time needs attention."""


class RevocationMetrics:
    """Follows each job's revocation from its first attempt to its proof."""

    types: ClassVar = (EventType.REVOCATION_STARTED, EventType.REVOCATION_CONFIRMED, *OVERDUE, *END_EVENTS)

    def __init__(self, until: datetime) -> None:
        """`until`: the end of the period."""
        self._until = until
        self._since: dict[str, datetime] = {}
        self._took = Distribution()
        self._longest_overdue: float | None = None
        """The longest duration, in seconds, of an overdue revocation that was then confirmed."""
        self._overdue_credentials: dict[str, datetime] = {}
        """Credentials that were overdue while their job ran, and since when."""
        self._overdue_jobs: set[str] = set()
        self._confirmed, self._overdue = Sample[str](), Sample[str]()

    def add(self, fact: EntryFact) -> None:
        match fact.kind:
            case "revocation.started":
                self._since.setdefault(fact.job, fact.at)
            case "revocation.confirmed" if fact.job in self._since:
                seconds = seconds_between(self._since.pop(fact.job), fact.at)
                self._confirmed.add(fact.id)
                self._took.add(seconds)
                if fact.job in self._overdue_jobs:
                    self._longest_overdue = max(self._longest_overdue or 0.0, seconds)
            case "revocation.overdue" | "credential.overdue":
                self._overdue_jobs.add(fact.job)
                self._overdue.add(fact.id)
                if "credential" in fact.data:
                    self._overdue_credentials.setdefault(fact.data["credential"], fact.at)
            case "credential.confirmed" | "credential.expired" if fact.data["credential"] in self._overdue_credentials:
                seconds = seconds_between(self._overdue_credentials.pop(fact.data["credential"]), time_done(fact.data, fact.at))
                self._longest_overdue = max(self._longest_overdue or 0.0, seconds)

    def metric_results(self) -> Iterator[MetricResult]:
        figures = self._took.figures()
        p95 = figures["p95_seconds"]
        status = Status.ATTENTION if isinstance(p95, float) and p95 > MAX_P95_S else Status.OK
        figures["open_at_the_end"] = len(self._since)
        yield MetricResult("revocation.time", figures, status, self._confirmed, (EventType.REVOCATION_CONFIRMED,))
        open_since = [*(self._since[job] for job in self._overdue_jobs & self._since.keys()), *self._overdue_credentials.values()]
        durations = [seconds_between(since, self._until) for since in open_since]
        if self._longest_overdue is not None:
            durations.append(self._longest_overdue)
        jobs = len(self._overdue_jobs)
        figures = {"jobs": jobs, "longest_seconds": max(durations, default=None)}
        yield MetricResult("revocation.overdue", figures, status_above(jobs, Status.ATTENTION), self._overdue, OVERDUE)
