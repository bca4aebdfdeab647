"""Approvals of the period: requests and decisions, how long decisions took, and how long jobs waited for them. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar

from justenough.domain.evidence.report import Status, Table
from justenough.domain.evidence.statistics import (
    Distribution,
    EntryFact,
    MetricResult,
    Sample,
    count_result,
    count_table,
    seconds_between,
    status_above,
)
from justenough.domain.ledger.events import EventType

OUTCOMES = ("opened", "escalated", "approved", "denied", "expired")
APPROVING_EVENTS = (EventType.APPROVAL_ESCALATED, EventType.APPROVAL_DECIDED)
"""Events that may approve a request: as it escalates, the earlier approvals may be enough for the new tier."""


@dataclass(slots=True)
class TrackedRequest:
    """A request of a job that has not ended, and the state of its approval."""

    ttl: int | None = None
    action: str | None = None
    tools: Mapping[str, Any] | None = None
    """Tool → bounds, if the request is for access through tools."""
    tier: int = 0
    opened_at: datetime | None = None


@dataclass(slots=True)
class TrackedJob:
    """A job that has not ended: its requests, the pending ones, and the time since which at least one has been pending."""

    requests: dict[str, TrackedRequest] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    since: datetime | None = None


class ApprovalMetrics:
    """Follows each request from the opening of its approval to the decision that settles it."""

    types: ClassVar = (
        EventType.ACCESS_REQUESTED,
        EventType.APPROVAL_OPENED,
        EventType.APPROVAL_ESCALATED,
        EventType.APPROVAL_DECIDED,
        EventType.APPROVAL_EXPIRED,
        EventType.APPROVAL_WITHDRAWN,
        EventType.ACCESS_WITHDRAWN,
        EventType.JOB_ENDED,
    )

    def __init__(self, until: datetime) -> None:
        """`until`: the end of the period."""
        self._until = until
        self._jobs: dict[str, TrackedJob] = {}
        self._tiers = defaultdict[int, Counter[str]](Counter)
        self._people, self._narrowed_by = Counter[str](), Counter[str]()
        self._latency = Distribution()
        self._waited_s, self._waits, self._for_others = 0.0, 0, 0
        self._all, self._settled, self._decisions = Sample[str](), Sample[str](), Sample[str]()
        self._openings, self._narrowed, self._withdrawn = Sample[str](), Sample[str](), Sample[str]()

    def add(self, fact: EntryFact) -> None:
        match fact.kind:
            case "access.requested":
                request = self._tracked_request(fact)
                request.ttl, request.action, request.tools = fact.data["ttl"], fact.data["action"], fact.data.get("tools")
            case "approval.opened":
                self._all.add(fact.id)
                self._openings.add(fact.id)
                request, job = self._tracked_request(fact), self._jobs[fact.job]
                request.tier, request.opened_at = fact.data["tier"], fact.at
                self._tiers[request.tier]["opened"] += 1
                job.pending.add(fact.data["request"])
                self._waits += job.since is None
                job.since = job.since or fact.at
            case "approval.escalated":
                self._escalate(fact)
            case "approval.decided":
                self._decide(fact)
            case "approval.expired":
                self._tiers[fact.data["tier"]]["expired"] += 1
                self._settle(fact, self._tracked_request(fact))
            case "approval.withdrawn":
                self._withdrawn.add(fact.id)
            case "access.withdrawn" if fact.job in self._jobs:
                self._stop_waiting(self._jobs[fact.job], {fact.data["request"]}, fact.at)
            case "job.ended" if fact.job in self._jobs:
                job = self._jobs.pop(fact.job)
                self._stop_waiting(job, job.pending, fact.at)

    def metric_results(self) -> Iterator[MetricResult]:
        totals = {name: sum(tier[name] for tier in self._tiers.values()) for name in OUTCOMES}
        rows = tuple((tier, *(self._tiers[tier][name] for name in OUTCOMES)) for tier in sorted(self._tiers))
        table, status = Table(columns=("tier", *OUTCOMES), rows=rows), status_above(totals["expired"], Status.ATTENTION)
        opened, decided, approving = EventType.APPROVAL_OPENED, EventType.APPROVAL_DECIDED, APPROVING_EVENTS
        settling = (*approving, EventType.APPROVAL_EXPIRED)
        yield MetricResult("approvals.outcomes", totals, status, self._all, (opened, *settling), table)
        yield MetricResult("approvals.latency", self._latency.figures(), Status.OK, self._settled, settling)
        people = {"answers": self._people.total(), "people": len(self._people), "for_somebody_away": self._for_others}
        table = count_table(("person", "answers"), self._people)
        yield MetricResult("approvals.people", people, Status.OK, self._decisions, (decided,), table)
        # A job that still waits has waited until the end of the period.
        waiting_since = [job.since for job in self._jobs.values() if job.since is not None]
        seconds = self._waited_s + sum(max(seconds_between(since, self._until), 0.0) for since in waiting_since)
        waiting = {"job_hours": round(seconds / 3600, 3), "waits": self._waits, "waiting_at_the_end": len(waiting_since)}
        yield MetricResult("approvals.waiting", waiting, Status.OK, self._openings, (opened,))
        narrowed = {"narrowed": self._narrowed.count, **{name: self._narrowed_by[name] for name in ("by_ttl", "by_action", "by_tools")}}
        yield MetricResult("approvals.narrowed", narrowed, Status.OK, self._narrowed, approving)
        yield count_result("approvals.withdrawn", "withdrawn", self._withdrawn, (EventType.APPROVAL_WITHDRAWN,))

    def _tracked_request(self, fact: EntryFact) -> TrackedRequest:
        return self._jobs.setdefault(fact.job, TrackedJob()).requests.setdefault(fact.data["request"], TrackedRequest())

    def _escalate(self, fact: EntryFact) -> None:
        self._all.add(fact.id)
        self._tracked_request(fact).tier = tier = fact.data["tier"]
        self._tiers[tier]["escalated"] += 1
        # The answers from before may be enough for the new tier.
        if fact.data.get("verdict"):
            self._settle_as_decided(fact, tier)

    def _decide(self, fact: EntryFact) -> None:
        data = fact.data
        self._people[data["name"]] += 1
        self._for_others += bool(data.get("on_behalf_of"))
        self._decisions.add(fact.id)
        if data["verdict"] not in {"approved", "denied"}:
            return
        # Older entries only have the approver's tier, which may be higher; the request's is 0 if it opened before the period.
        self._settle_as_decided(fact, data.get("current_tier") or self._tracked_request(fact).tier or data["tier"])

    def _settle_as_decided(self, fact: EntryFact, tier: int) -> None:
        data, request = fact.data, self._tracked_request(fact)
        self._tiers[tier][data["verdict"]] += 1
        self._settle(fact, request)
        if data["verdict"] == "approved":
            # Old entries do not record the granted action.
            granted_action = data.get("granted_action")
            narrowed = {
                "by_ttl": request.ttl is not None and (data["granted_ttl"] or request.ttl) < request.ttl,
                "by_action": bool(granted_action and request.action and granted_action != request.action),
                "by_tools": request.tools is not None and data.get("granted_tools") != request.tools,
            }
            self._narrowed_by.update(narrowed)
            if any(narrowed.values()):
                self._narrowed.add(fact.id)

    def _settle(self, fact: EntryFact, request: TrackedRequest) -> None:
        self._all.add(fact.id)
        if request.opened_at is not None:
            self._latency.add(seconds_between(request.opened_at, fact.at))
            self._settled.add(fact.id)
        self._stop_waiting(self._jobs[fact.job], {fact.data["request"]}, fact.at)

    def _stop_waiting(self, job: TrackedJob, requests: set[str], at: datetime) -> None:
        """Mark the requests as no longer pending; the wait of their job ends if none is left."""
        job.pending = job.pending - requests
        if job.since is not None and not job.pending:
            self._waited_s += max(seconds_between(job.since, at), 0.0)
            job.since = None
