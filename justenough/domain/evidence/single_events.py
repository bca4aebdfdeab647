"""Counts events that stand alone: rejected decisions and orders, break-glass reviews, control groups, jobs without a sandbox, unknown access,
checkpoints. No I/O, no clock.

An entry type that an older version did not record counts as 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from justenough.domain.evidence.report import Status
from justenough.domain.evidence.statistics import EntryFact, MetricResult, Sample, count_result, count_table, status_above
from justenough.domain.ledger.events import EventType

REVIEWS = (EventType.REVIEW_OPENED, EventType.REVIEW_ANSWERED)
OWN_JOB_KIND = "own job"

REASON_KINDS: tuple[tuple[str, str], ...] = (
    ("not a ", "malformed"),
    ("a job that they launched", OWN_JOB_KIND),
    ("came of one that they launched", OWN_JOB_KIND),
    ("signature", "invalid signature"),
    ("another person's", "another person's statement"),
    ("answered this request already", "already decided"),
    ("has answered already", "already decided"),
    ("withdrew their answer", "already decided"),
    ("digest", "changed or different content"),
    ("is for another", "changed or different content"),
    ("than what would run", "changed or different content"),
    ("is another", "changed or different content"),
    ("than when the job asked", "changed or different content"),
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
    ("to withdraw", "not pending"),
    ("may do this", "not authorized"),
    ("InvalidInput", "malformed"),
    ("the decision has no reason", "malformed"),
    ("the decision's ttl", "malformed"),
    ("policy denies", "denied by policy"),
    ("but the request is at tier", "denied by policy"),
)
"""Words in a reason, in this or an earlier version, and the kind that they indicate; the first match wins.

A reason with none of these words is `other`.
"""


def rejection_kind_of(why: str) -> str:
    return next((kind for text, kind in REASON_KINDS if text in why), "other")


class SingleEventMetrics:
    """Counts events of the period. `current_state` counts the reviews that are open now."""

    types: ClassVar = (
        EventType.APPROVAL_REJECTED,
        EventType.JOB_REFUSED,
        *REVIEWS,
        EventType.LOCK_OPENED,
        EventType.JOB_STARTED,
        EventType.SWEEP_REPORTED,
        EventType.LEDGER_CHECKPOINTED,
    )

    def __init__(self) -> None:
        self._rejection_kinds, self._reviews, self._started = Counter[str](), Counter[str](), 0
        self._rejected, self._own_job, self._orders = Sample[str](), Sample[str](), Sample[str]()
        self._seen_reviews, self._locks, self._unsandboxed, self._unknown = Sample[str](), Sample[str](), Sample[str](), Sample[str]()
        self._checkpoint: EntryFact | None = None

    def add(self, fact: EntryFact) -> None:
        match fact.kind:
            case "approval.rejected":
                kind = rejection_kind_of(fact.data["why"])
                self._rejection_kinds[kind] += 1
                self._rejected.add(fact.id)
                if kind == OWN_JOB_KIND:
                    self._own_job.add(fact.id)
            case "job.refused":
                self._orders.add(fact.id)
            case "review.opened" | "review.answered":
                self._seen_reviews.add(fact.id)
                self._reviews["opened" if fact.kind == "review.opened" else fact.data["verdict"]] += 1
            case "lock.opened":
                self._locks.add(fact.id)
            case "job.started":
                self._started += 1
                if fact.data["sandbox"] == "off":
                    self._unsandboxed.add(fact.id)
            case "sweep.reported":
                self._unknown.add(fact.id)
            case "ledger.checkpointed":
                self._checkpoint = fact

    def metric_results(self) -> Iterator[MetricResult]:
        rejected, refused, above = (EventType.APPROVAL_REJECTED,), (EventType.JOB_REFUSED,), Status.ATTENTION
        table = count_table(("reason", "attempts"), self._rejection_kinds)
        yield count_result("attempts.rejected", "rejected", self._rejected, rejected, above=above, table=table)
        yield count_result("attempts.own", "attempts", self._own_job, rejected, above=above)
        yield count_result("attempts.orders", "attempts", self._orders, refused, above=above)
        status = status_above(self._reviews["unjustified"], above)
        verdicts = {name: self._reviews[name] for name in ("opened", "justified", "unjustified")}
        yield MetricResult("emergency.reviews", verdicts, status, self._seen_reviews, REVIEWS)
        yield count_result("emergency.locks", "double_locked_issues", self._locks, (EventType.LOCK_OPENED,))
        unsandboxed = self._unsandboxed.count
        runs, status = {"runs": self._started, "sandbox_off": unsandboxed}, status_above(unsandboxed, above)
        yield MetricResult("machinery.sandbox_off", runs, status, self._unsandboxed, (EventType.JOB_STARTED,))
        yield count_result("machinery.sweep", "of_no_known_job", self._unknown, (EventType.SWEEP_REPORTED,), above=above)
        newest = self._checkpoint
        seen, status = (Sample(1, [newest.id]), Status.OK) if newest else (Sample[str](), above)
        last = {"last_checkpoint": newest.at.isoformat() if newest else "none"}
        yield MetricResult("ledger.checkpoint", last, status, seen, (EventType.LEDGER_CHECKPOINTED,))
