"""Counts the decisions and orders that were rejected in the period, by kind of reason. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from justenough.domain.evidence.report import Status
from justenough.domain.evidence.statistics import EntryFact, MetricResult, Sample, count_result, count_table
from justenough.domain.ledger.events import EventType

OWN_JOB_KIND = "own job"

REASON_KINDS: tuple[tuple[str, str], ...] = (
    ("not a ", "malformed"),
    ("a job that they launched", OWN_JOB_KIND),
    ("came of one that they launched", OWN_JOB_KIND),
    ("signature", "invalid signature"),
    ("another person's", "another person's statement"),
    ("answered this request already", "already decided"),
    ("has answered already", "already decided"),
    ("digest", "changed or different content"),
    ("is for another", "changed or different content"),
    ("something else than what would run", "changed or different content"),
    ("is another", "changed or different content"),
    ("not what has been recorded", "changed or different content"),
    ("differs from the recorded", "changed or different content"),
    ("statement has expired", "expired or from the future"),
    ("from the future", "expired or from the future"),
    ("lives longer", "expired or from the future"),
    ("valid for longer", "expired or from the future"),
    ("not pending", "not pending"),
    ("waits for an answer", "not pending"),
    ("needs one of the groups", "not authorized"),
    ("in no group", "not authorized"),
    ("does not answer for", "not authorized"),
    ("may not decide", "not authorized"),
    ("in none of the groups", "not authorized"),
    ("no person here", "not authorized"),
    ("not an active person", "not authorized"),
    ("delegate", "not authorized"),
    ("approved nothing here", "not pending"),
    ("no approval here", "not pending"),
    ("InvalidInput", "malformed"),
)
"""Words in a reason, in this or an earlier version, and the kind that they indicate; the first match wins.

A reason with none of these words is `other`.
"""


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
        if fact.kind == "job.refused":
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
