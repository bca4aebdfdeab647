"""What people were asked and answered in the period, how long that took, and what it cost the jobs that waited. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from justenough.domain.evidence.report import Cell, Status, Table
from justenough.domain.evidence.statistics import Fact, Found, Seen, Spread, seconds, status_above

OPENED = "approval.opened"
ESCALATED = "approval.escalated"
DECIDED = "approval.decided"
EXPIRED = "approval.expired"
WITHDRAWN = "approval.withdrawn"
OUTCOMES = ("opened", "escalated", "approved", "denied", "expired")


@dataclass(slots=True)
class Asked:
    """One request of a job that has not ended: what it asks for, and where its approval stands."""

    ttl: int | None = None
    action: str | None = None
    tools: Mapping[str, Any] | None = None
    """tool → bounds, where it is for access through tools."""
    tier: int = 0
    opened_at: datetime | None = None


@dataclass(slots=True)
class Waiting:
    """A job that has not ended: its requests, those of them that wait, and since when any does."""

    requests: dict[str, Asked] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    since: datetime | None = None


class Approvals:
    """Follows each request from the opening of its approval to what settles it."""

    def __init__(self) -> None:
        self._jobs: dict[str, Waiting] = {}
        self._tiers = defaultdict[int, Counter[str]](Counter)
        self._people = Counter[str]()
        self._latency = Spread()
        self._waited, self._waits_began = 0.0, 0
        self._narrowed_ttl, self._narrowed_action, self._narrowed_tools, self._for_others = 0, 0, 0, 0
        self._all, self._settled, self._answers, self._openings = Seen(), Seen(), Seen(), Seen()
        self._narrowed, self._withdrawn = Seen(), Seen()

    @property
    def handlers(self) -> Mapping[str, Callable[[Fact], None]]:
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

    def found(self, *, until: datetime) -> Iterator[Found]:
        """Yield its lines."""
        totals = {name: sum(tier[name] for tier in self._tiers.values()) for name in OUTCOMES}
        expired = status_above(totals["expired"], Status.ATTENTION)
        yield Found("approvals.outcomes", {**totals}, expired, self._all, (OPENED, ESCALATED, DECIDED, EXPIRED), self._by_tier())
        yield Found("approvals.latency", self._latency.figures(), Status.OK, self._settled, (DECIDED, EXPIRED))
        answers = tuple((name, count) for name, count in sorted(self._people.items(), key=lambda item: (-item[1], item[0])))
        counted = {"answers": self._people.total(), "people": len(self._people), "for_somebody_away": self._for_others}
        yield Found(
            "approvals.people", {**counted}, Status.OK, self._answers, (DECIDED,), Table(columns=("person", "answers"), rows=answers)
        )
        yield self._waits(until=until)
        figures: dict[str, Cell] = {
            "narrowed": self._narrowed.count,
            "by_ttl": self._narrowed_ttl,
            "by_action": self._narrowed_action,
            "by_tools": self._narrowed_tools,
        }
        yield Found("approvals.narrowed", figures, Status.OK, self._narrowed, (DECIDED,))
        yield Found("approvals.withdrawn", {"withdrawn": self._withdrawn.count}, Status.OK, self._withdrawn, (WITHDRAWN,))

    def _waits(self, *, until: datetime) -> Found:
        """Return what waiting cost; who waits still has waited until the period's end."""
        still = [waiting.since for waiting in self._jobs.values() if waiting.since is not None]
        total = self._waited + sum(max(seconds(since, until), 0.0) for since in still)
        figures: dict[str, Cell] = {"job_hours": round(total / 3600, 3), "waits": self._waits_began, "waiting_at_the_end": len(still)}
        return Found("approvals.waiting", figures, Status.OK, self._openings, (OPENED,))

    def _by_tier(self) -> Table:
        rows = tuple((tier, *(self._tiers[tier][name] for name in OUTCOMES)) for tier in sorted(self._tiers))
        return Table(columns=("tier", *OUTCOMES), rows=rows)

    def _job(self, fact: Fact) -> Waiting:
        return self._jobs.setdefault(fact.job, Waiting())

    def _asked(self, fact: Fact) -> Asked:
        return self._job(fact).requests.setdefault(fact.data["request"], Asked())

    def _request(self, fact: Fact) -> None:
        asked = self._asked(fact)
        asked.ttl, asked.action, asked.tools = fact.data["ttl"], fact.data["action"], fact.data.get("tools")

    def _open(self, fact: Fact) -> None:
        self._all.add(fact.id)
        self._openings.add(fact.id)
        asked, waiting = self._asked(fact), self._job(fact)
        asked.tier, asked.opened_at = fact.data["tier"], fact.at
        self._tiers[asked.tier]["opened"] += 1
        if waiting.since is None:
            waiting.since = fact.at
            self._waits_began += 1
        waiting.pending.add(fact.data["request"])

    def _climb(self, fact: Fact) -> None:
        self._all.add(fact.id)
        asked = self._asked(fact)
        asked.tier = fact.data["tier"]
        self._tiers[asked.tier]["escalated"] += 1

    def _decide(self, fact: Fact) -> None:
        data = fact.data
        self._people[data["name"]] += 1
        self._for_others += bool(data.get("on_behalf_of"))
        self._answers.add(fact.id)
        if data["verdict"] not in {"approved", "denied"}:
            return
        asked = self._asked(fact)
        self._tiers[asked.tier or data["tier"]][data["verdict"]] += 1
        self._settle(fact, asked)
        if data["verdict"] == "approved":
            self._compare(fact, asked)

    def _compare(self, fact: Fact, asked: Asked) -> None:
        """Count what was granted narrower than it was asked for."""
        shorter = asked.ttl is not None and (fact.data["granted_ttl"] or asked.ttl) < asked.ttl
        # Only later versions record which action was granted.
        granted = fact.data.get("granted_action")
        less = bool(granted and asked.action and granted != asked.action)
        self._narrowed_ttl += shorter
        self._narrowed_action += less
        bound = asked.tools is not None and fact.data.get("granted_tools") != asked.tools
        self._narrowed_tools += bound
        if shorter or less or bound:
            self._narrowed.add(fact.id)

    def _expire(self, fact: Fact) -> None:
        self._tiers[fact.data["tier"]]["expired"] += 1
        self._settle(fact, self._asked(fact))

    def _settle(self, fact: Fact, asked: Asked) -> None:
        self._all.add(fact.id)
        if asked.opened_at is not None:
            self._latency.add(seconds(asked.opened_at, fact.at))
            self._settled.add(fact.id)
        self._no_longer(fact.job, fact.data["request"], fact.at)

    def _take_back(self, fact: Fact) -> None:
        self._withdrawn.add(fact.id)

    def _give_up(self, fact: Fact) -> None:
        self._no_longer(fact.job, fact.data["request"], fact.at)

    def _no_longer(self, job: str, request: str, at: datetime) -> None:
        """A request does not wait any more; the last of a job's ends its waiting."""
        waiting = self._jobs.get(job)
        if waiting is None or waiting.since is None:
            return
        waiting.pending.discard(request)
        if not waiting.pending:
            self._waited += max(seconds(waiting.since, at), 0.0)
            waiting.since = None

    def _end(self, fact: Fact) -> None:
        waiting = self._jobs.pop(fact.job, None)
        if waiting is not None and waiting.since is not None:
            self._waited += max(seconds(waiting.since, fact.at), 0.0)
