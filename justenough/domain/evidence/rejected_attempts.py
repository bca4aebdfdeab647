"""Counts the decisions and orders that were rejected in the period, by kind of reason. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from justenough.domain.evidence.report import Status
from justenough.domain.evidence.statistics import EntryFact, MetricResult, Sample, count_result, count_table
from justenough.domain.ledger.events import EventType

OWN_JOB_KIND = "for their own job"

REASON_KINDS: tuple[tuple[str, str], ...] = (
    ("not a ", "not readable"),
    ("a job that they launched", OWN_JOB_KIND),
    ("came of one that they launched", OWN_JOB_KIND),
    ("signature", "signature does not hold"),
    ("another person's", "somebody else's statement"),
    ("answered this request already", "answered before"),
    ("has answered already", "answered before"),
    ("digest", "about something else"),
    ("is for another", "about something else"),
    ("something else than what would run", "about something else"),
    ("is another", "about something else"),
    ("not what has been recorded", "about something else"),
    ("statement has expired", "not current"),
    ("from the future", "not current"),
    ("lives longer", "not current"),
    ("not pending", "nothing waits for it"),
    ("waits for an answer", "nothing waits for it"),
    ("needs one of the groups", "not entitled"),
    ("in no group", "not entitled"),
    ("does not answer for", "not entitled"),
    ("in none of the groups", "not entitled"),
    ("no person here", "not entitled"),
    ("delegate", "not entitled"),
    ("approved nothing here", "nothing waits for it"),
    ("InvalidInput", "not readable"),
)
"""Words in a reason, and its kind; the first match wins. A reason without any of these words is `other`."""


def rejection_kind_of(why: str) -> str:
    """Return the kind of a rejection's reason."""
    return next((kind for text, kind in REASON_KINDS if text in why), "other")


class RejectedAttemptMetrics:
    """Counts rejected decisions by kind of reason, and rejected orders."""

    types: ClassVar = (EventType.APPROVAL_REJECTED, EventType.JOB_REFUSED)

    def __init__(self) -> None:
        self._kinds = Counter[str]()
        self._rejected, self._own_job, self._orders = Sample[str](), Sample[str](), Sample[str]()

    def add(self, fact: EntryFact) -> None:
        """Count an entry of one of the types."""
        if fact.kind == EventType.JOB_REFUSED:
            self._orders.add(fact.id)
            return
        kind = rejection_kind_of(fact.data["why"])
        self._kinds[kind] += 1
        self._rejected.add(fact.id)
        if kind == OWN_JOB_KIND:
            self._own_job.add(fact.id)

    def metric_results(self) -> Iterator[MetricResult]:
        """Yield the results of this module's metrics."""
        rejected, refused, above = (EventType.APPROVAL_REJECTED,), (EventType.JOB_REFUSED,), Status.ATTENTION
        table = count_table(("reason", "attempts"), self._kinds)
        yield count_result("attempts.rejected", "rejected", self._rejected, rejected, above=above, table=table)
        yield count_result("attempts.own", "attempts", self._own_job, rejected, above=above)
        yield count_result("attempts.orders", "attempts", self._orders, refused, above=above)
