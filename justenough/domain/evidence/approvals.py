"""What people were asked and answered in the period, how long that took, and what it cost the jobs that waited. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from justenough.domain.evidence.report import Cell, Status, Table
from justenough.domain.evidence.statistics import Distribution, EntryFact, EntrySample, MetricResult, seconds_between, status_above

OPENED = "approval.opened"
ESCALATED = "approval.escalated"
DECIDED = "approval.decided"
EXPIRED = "approval.expired"
WITHDRAWN = "approval.withdrawn"
OUTCOMES = ("opened", "escalated", "approved", "denied", "expired")


@dataclass(slots=True)
class TrackedRequest:
    """One request of a job that has not ended: what it asks for, and where its approval stands."""

    ttl: int | None = None
    action: str | None = None
    tools: Mapping[str, Any] | None = None
    """tool → bounds, where it is for access through tools."""
    tier: int = 0
    opened_at: datetime | None = None


@dataclass(slots=True)
class TrackedJob:
    """A job that has not ended: its requests, those of them that wait, and since when any does."""

    requests: dict[str, TrackedRequest] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    since: datetime | None = None


class ApprovalMetrics:
    """Follows each request from the opening of its approval to what settles it."""

    def __init__(self) -> None:
        self._jobs: dict[str, TrackedJob] = {}
        self._tiers = defaultdict[int, Counter[str]](Counter)
        self._people = Counter[str]()
        self._latency = Distribution()
        self._waited, self._waits_began = 0.0, 0
        self._narrowed_ttl, self._narrowed_action, self._narrowed_tools, self._for_others = 0, 0, 0, 0
        self._all, self._settled, self._answers, self._openings = EntrySample(), EntrySample(), EntrySample(), EntrySample()
        self._narrowed, self._withdrawn = EntrySample(), EntrySample()

    @property
    def handlers(self) -> Mapping[str, Callable[[EntryFact], None]]:
        """What each type of entry means here."""
        return {
            "access.requested": self._request,
            OPENED: self._open,
            ESCALATED: self._climb,
            DECIDED: self._decide,
            EXPIRED: self._expire,
            WITHDRAWN: self._take_back,
            "access.withdrawn": self._give_up,
            "job.ended": self._end,
        }

    def metric_results(self, *, until: datetime) -> Iterator[MetricResult]:
        """Yield its lines."""
        totals = {name: sum(tier[name] for tier in self._tiers.values()) for name in OUTCOMES}
        expired = status_above(totals["expired"], Status.ATTENTION)
        yield MetricResult("approvals.outcomes", {**totals}, expired, self._all, (OPENED, ESCALATED, DECIDED, EXPIRED), self._tier_table())
        yield MetricResult("approvals.latency", self._latency.figures(), Status.OK, self._settled, (DECIDED, EXPIRED))
        answers = tuple((name, count) for name, count in sorted(self._people.items(), key=lambda item: (-item[1], item[0])))
        counted = {"answers": self._people.total(), "people": len(self._people), "for_somebody_away": self._for_others}
        yield MetricResult(
            "approvals.people", {**counted}, Status.OK, self._answers, (DECIDED,), Table(columns=("person", "answers"), rows=answers)
        )
        yield self._waiting_result(until=until)
        figures: dict[str, Cell] = {
            "narrowed": self._narrowed.count,
            "by_ttl": self._narrowed_ttl,
            "by_action": self._narrowed_action,
            "by_tools": self._narrowed_tools,
        }
        yield MetricResult("approvals.narrowed", figures, Status.OK, self._narrowed, (DECIDED,))
        yield MetricResult("approvals.withdrawn", {"withdrawn": self._withdrawn.count}, Status.OK, self._withdrawn, (WITHDRAWN,))

    def _waiting_result(self, *, until: datetime) -> MetricResult:
        """Return what waiting cost; who waits still has waited until the period's end."""
        still = [waiting.since for waiting in self._jobs.values() if waiting.since is not None]
        total = self._waited + sum(max(seconds_between(since, until), 0.0) for since in still)
        figures: dict[str, Cell] = {"job_hours": round(total / 3600, 3), "waits": self._waits_began, "waiting_at_the_end": len(still)}
        return MetricResult("approvals.waiting", figures, Status.OK, self._openings, (OPENED,))

    def _tier_table(self) -> Table:
        rows = tuple((tier, *(self._tiers[tier][name] for name in OUTCOMES)) for tier in sorted(self._tiers))
        return Table(columns=("tier", *OUTCOMES), rows=rows)

    def _tracked_job(self, fact: EntryFact) -> TrackedJob:
        return self._jobs.setdefault(fact.job, TrackedJob())

    def _tracked_request(self, fact: EntryFact) -> TrackedRequest:
        return self._tracked_job(fact).requests.setdefault(fact.data["request"], TrackedRequest())

    def _request(self, fact: EntryFact) -> None:
        asked = self._tracked_request(fact)
        asked.ttl, asked.action, asked.tools = fact.data["ttl"], fact.data["action"], fact.data.get("tools")

    def _open(self, fact: EntryFact) -> None:
        self._all.add(fact.id)
        self._openings.add(fact.id)
        asked, waiting = self._tracked_request(fact), self._tracked_job(fact)
        asked.tier, asked.opened_at = fact.data["tier"], fact.at
        self._tiers[asked.tier]["opened"] += 1
        if waiting.since is None:
            waiting.since = fact.at
            self._waits_began += 1
        waiting.pending.add(fact.data["request"])

    def _climb(self, fact: EntryFact) -> None:
        self._all.add(fact.id)
        asked = self._tracked_request(fact)
        asked.tier = fact.data["tier"]
        self._tiers[asked.tier]["escalated"] += 1

    def _decide(self, fact: EntryFact) -> None:
        data = fact.data
        self._people[data["name"]] += 1
        self._for_others += bool(data.get("on_behalf_of"))
        self._answers.add(fact.id)
        if data["verdict"] not in {"approved", "denied"}:
            return
        asked = self._tracked_request(fact)
        self._tiers[asked.tier or data["tier"]][data["verdict"]] += 1
        self._settle(fact, asked)
        if data["verdict"] == "approved":
            self._compare(fact, asked)

    def _compare(self, fact: EntryFact, request: TrackedRequest) -> None:
        """Count what was granted narrower than it was asked for."""
        shorter = request.ttl is not None and (fact.data["granted_ttl"] or request.ttl) < request.ttl
        # Only later versions record which action was granted.
        granted = fact.data.get("granted_action")
        less = bool(granted and request.action and granted != request.action)
        self._narrowed_ttl += shorter
        self._narrowed_action += less
        bound = request.tools is not None and fact.data.get("granted_tools") != request.tools
        self._narrowed_tools += bound
        if shorter or less or bound:
            self._narrowed.add(fact.id)

    def _expire(self, fact: EntryFact) -> None:
        self._tiers[fact.data["tier"]]["expired"] += 1
        self._settle(fact, self._tracked_request(fact))

    def _settle(self, fact: EntryFact, request: TrackedRequest) -> None:
        self._all.add(fact.id)
        if request.opened_at is not None:
            self._latency.add(seconds_between(request.opened_at, fact.at))
            self._settled.add(fact.id)
        self._stop_waiting(fact.job, fact.data["request"], fact.at)

    def _take_back(self, fact: EntryFact) -> None:
        self._withdrawn.add(fact.id)

    def _give_up(self, fact: EntryFact) -> None:
        self._stop_waiting(fact.job, fact.data["request"], fact.at)

    def _stop_waiting(self, job: str, request: str, at: datetime) -> None:
        """A request does not wait any more; the last of a job's ends its waiting."""
        waiting = self._jobs.get(job)
        if waiting is None or waiting.since is None:
            return
        waiting.pending.discard(request)
        if not waiting.pending:
            self._waited += max(seconds_between(waiting.since, at), 0.0)
            waiting.since = None

    def _end(self, fact: EntryFact) -> None:
        waiting = self._jobs.pop(fact.job, None)
        if waiting is not None and waiting.since is not None:
            self._waited += max(seconds_between(waiting.since, fact.at), 0.0)
