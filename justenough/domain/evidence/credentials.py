"""How the period's credentials ended: granted and actual lifetimes, verified ends, and the revocations of jobs: how long they took, and which
were overdue. `current_state` counts those that are overdue now. No I/O, no clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import ClassVar, NamedTuple

from justenough.domain.evidence.report import Cell, Status, Table
from justenough.domain.evidence.statistics import (
    Distribution,
    EntryFact,
    MetricResult,
    Sample,
    seconds_between,
    status_above,
)
from justenough.domain.jobs.states import Revocable
from justenough.domain.ledger.events import EventType, parse_entry_time, time_done
from justenough.domain.ledger.overdue import MAX_SWEEP_AGE

OVERDUE = (EventType.REVOCATION_OVERDUE, EventType.CREDENTIAL_OVERDUE)
MAX_P95_S = 60.0
"""A higher 95th percentile of the revocation time needs attention."""
END_EVENTS = (EventType.CREDENTIAL_CONFIRMED, EventType.CREDENTIAL_EXPIRED)
LATE_END_GRACE: timedelta = MAX_SWEEP_AGE
"""An end that is verified within this time after the expiry was found by the next sweep, and is not late."""


class OpenCredential(NamedTuple):
    """A credential without a recorded end."""

    job: str
    entry: str
    access: str
    """`resource:action`."""
    issued_at: datetime
    expires_at: datetime
    revocable: str

    @property
    def end_events(self) -> tuple[EventType, ...]:
        """The types of events that record its end. `credential.residual` is one if only its owner can change it: nothing is recorded later."""
        return (*END_EVENTS, EventType.CREDENTIAL_RESIDUAL) if self.revocable == Revocable.NEVER else END_EVENTS


class AccessLifetimes:
    """Granted and actual lifetimes of one action on one resource."""

    def __init__(self) -> None:
        self.granted = Distribution()
        self.real = Distribution()

    def row(self, name: str) -> tuple[Cell, ...]:
        return (name, len(self.real), *self.granted.durations().values(), *self.real.durations().values())


class CredentialMetrics:
    """Follows each credential that was issued in the period to its end."""

    types: ClassVar = (
        EventType.CREDENTIAL_ISSUED,
        EventType.CREDENTIAL_DOUBTED,
        EventType.CREDENTIAL_RENEWED,
        EventType.CREDENTIAL_RESIDUAL,
        *END_EVENTS,
    )

    def __init__(self) -> None:
        self.open: dict[str, OpenCredential] = {}
        self._issued = 0
        self._all = AccessLifetimes()
        self._by_access = defaultdict[str, AccessLifetimes](AccessLifetimes)
        self._confirmed, self._expired, self._irrevocable, self._late = Sample[str](), Sample[str](), Sample[str](), Sample[str]()
        self._expired_by_revocable = Counter[str]()

    def add(self, fact: EntryFact) -> None:
        credential = fact.data["credential"]
        match fact.kind:
            case "credential.issued":
                self._issued += 1
                if fact.data["revocable"] == Revocable.NEVER:
                    self._irrevocable.add(fact.id)
                self._add_open(fact, issued_at=fact.data["issued_at"])
            case "credential.doubted" if credential not in self.open:
                self._add_open(fact, issued_at=fact.data["asked_at"])
            case "credential.renewed" if credential in self.open:
                self.open[credential] = self.open[credential]._replace(expires_at=parse_entry_time(fact.data["expires_at"]))
            case "credential.confirmed" if credential in self.open:
                ended, dead_at = self.open.pop(credential), time_done(fact.data, fact.at)
                self._confirmed.add(fact.id)
                for lifetimes in (self._all, self._by_access[ended.access]):
                    lifetimes.granted.add(seconds_between(ended.issued_at, ended.expires_at))
                    lifetimes.real.add(seconds_between(ended.issued_at, dead_at))
                if dead_at > ended.expires_at + LATE_END_GRACE:
                    self._late.add(fact.id)
            case "credential.residual" if fact.data["until"]:
                # Its expiry follows.
                pass
            case "credential.expired" | "credential.residual":
                expired = self.open.pop(credential, None)
                self._expired.add(fact.id)
                # Only what cannot be revoked at all is residual without an end.
                recorded = Revocable.NEVER.value if fact.kind == "credential.residual" else fact.data.get("revocable", "")
                self._expired_by_revocable[expired.revocable if expired else recorded] += 1

    def metric_results(self) -> Iterator[MetricResult]:
        granted, real = self._all.granted.durations("granted_"), self._all.real.durations("real_")
        figures = {**granted, "measured": len(self._all.real), **real, "beyond_their_end": self._late.count}
        status = status_above(self._late.count, Status.ATTENTION)
        ranks = [f"{what} {rank} (s)" for what in ("granted", "real") for rank in ("p50", "p95", "max")]
        rows = tuple(self._by_access[name].row(name) for name in sorted(self._by_access))
        table = Table(columns=("access", "ended", *ranks), rows=rows)
        yield MetricResult("lifetimes.real", figures, status, self._confirmed, (EventType.CREDENTIAL_ISSUED, *END_EVENTS), table)

        figures = {"expired_unconfirmed": self._expired.count}
        figures |= {f"revocable_{kind.value}": self._expired_by_revocable[kind.value] for kind in Revocable}
        figures["issued_before_the_period"] = self._expired_by_revocable[""]
        status = status_above(self._expired_by_revocable[Revocable.NOW.value], Status.ATTENTION)
        yield MetricResult(
            "revocation.expired", figures, status, self._expired, (EventType.CREDENTIAL_EXPIRED, EventType.CREDENTIAL_RESIDUAL)
        )

        irrevocable = self._irrevocable.count
        figures, status = {"issued": self._issued, "never_revocable": irrevocable}, status_above(irrevocable, Status.ATTENTION)
        yield MetricResult("revocation.never", figures, status, self._irrevocable, (EventType.CREDENTIAL_ISSUED,))

    def _add_open(self, fact: EntryFact, *, issued_at: str) -> None:
        data, access = fact.data, f"{fact.data['resource']}:{fact.data['action']}"
        times = parse_entry_time(issued_at), parse_entry_time(data["expires_at"])
        self.open[data["credential"]] = OpenCredential(fact.job, fact.id, access, *times, data["revocable"])


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
