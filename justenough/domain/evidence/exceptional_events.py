"""Counts exceptional events of the period: break-glass and its reviews, control groups, jobs without a sandbox, unknown access. No I/O, no clock.

An entry type that an older version did not record counts as 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from justenough.domain.evidence.report import Status
from justenough.domain.evidence.statistics import EntryFact, MetricResult, Sample, count_result, status_above
from justenough.domain.ledger.events import EventType

REVIEWS = (EventType.REVIEW_OPENED, EventType.REVIEW_ANSWERED)


class ExceptionalEventMetrics:
    """Counts events of the period; `current_state` counts the reviews that are open now."""

    types: ClassVar = (*REVIEWS, EventType.LOCK_OPENED, EventType.JOB_STARTED, EventType.SWEEP_REPORTED)

    def __init__(self) -> None:
        self._reviews = Counter[str]()
        self._seen_reviews, self._locks, self._unsandboxed, self._unknown = Sample[str](), Sample[str](), Sample[str](), Sample[str]()
        self._started = 0

    def add(self, fact: EntryFact) -> None:
        """Count an entry of one of the types."""
        match fact.kind:
            case "review.opened":
                self._seen_reviews.add(fact.id)
                self._reviews["opened"] += 1
            case "review.answered":
                self._seen_reviews.add(fact.id)
                self._reviews[fact.data["verdict"]] += 1
            case "lock.opened":
                self._locks.add(fact.id)
            case "job.started":
                self._started += 1
                if fact.data["sandbox"] == "off":
                    self._unsandboxed.add(fact.id)
            case "sweep.reported":
                self._unknown.add(fact.id)

    def metric_results(self) -> Iterator[MetricResult]:
        """Yield the results of this module's metrics."""
        status = status_above(self._reviews["unjustified"], Status.ATTENTION)
        verdicts = {name: self._reviews[name] for name in ("opened", "justified", "unjustified")}
        yield MetricResult("emergency.reviews", verdicts, status, self._seen_reviews, REVIEWS)
        yield count_result("emergency.locks", "double_locked_issues", self._locks, (EventType.LOCK_OPENED,))
        unsandboxed = self._unsandboxed.count
        figures = {"runs": self._started, "sandbox_off": unsandboxed}
        status = status_above(unsandboxed, Status.ATTENTION)
        yield MetricResult("machinery.sandbox_off", figures, status, self._unsandboxed, (EventType.JOB_STARTED,))
        yield count_result("machinery.sweep", "of_no_known_job", self._unknown, (EventType.SWEEP_REPORTED,), above=Status.ATTENTION)
