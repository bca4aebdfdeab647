"""What became of each credential of the period: how long it was granted and lived, and what could not be shown to be dead. No I/O, no clock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from justenough.domain.evidence.report import Cell, Status, Table
from justenough.domain.evidence.statistics import (
    Distribution,
    EntryFact,
    EntrySample,
    MetricResult,
    parse_moment,
    seconds_between,
    status_above,
)
from justenough.domain.jobs.states import Revocable
from justenough.domain.ledger.overdue import MAX_SWEEP_AGE

ISSUED = "credential.issued"
DOUBTED = "credential.doubted"
END_EVENTS = ("credential.confirmed", "credential.expired")
LATE_END_GRACE: timedelta = MAX_SWEEP_AGE
"""An end that is seen this much later was seen in the sweep's next round, not late."""


class OpenCredential(NamedTuple):
    """A credential whose end has not come up yet."""

    job: str
    entry: str
    access: str
    """`resource:action`."""
    issued_at: datetime
    expires_at: datetime
    revocable: str


class AccessLifetimes:
    """Granted and real lifetimes of one action on one resource."""

    def __init__(self) -> None:
        self.granted = Distribution()
        self.real = Distribution()

    def row(self, name: str) -> tuple[Cell, ...]:
        """Return its line in the table."""
        granted, real = self.granted.figures(), self.real.figures()
        ranks = ("p50_seconds", "p95_seconds", "max_seconds")
        return (name, len(self.real), *(granted[rank] for rank in ranks), *(real[rank] for rank in ranks))


class CredentialMetrics:
    """Follows each credential that was issued in the period to its end."""

    def __init__(self) -> None:
        self.open: dict[str, OpenCredential] = {}
        self._issued = Counter[str]()
        self._all = AccessLifetimes()
        self._by_access = defaultdict[str, AccessLifetimes](AccessLifetimes)
        self._confirmed, self._expired, self._never, self._outlived = EntrySample(), EntrySample(), EntrySample(), EntrySample()
        self._expired_of = Counter[str]()

    @property
    def handlers(self) -> Mapping[str, Callable[[EntryFact], None]]:
        """What each type of entry means here."""
        return {
            ISSUED: self._issue,
            DOUBTED: self._doubt,
            "credential.renewed": self._renew,
            "credential.confirmed": self._confirm,
            "credential.expired": self._expire,
        }

    def metric_results(self) -> Iterator[MetricResult]:
        """Yield its lines."""
        late = self._outlived.count
        yield MetricResult(
            "lifetimes.real",
            {
                **{f"granted_{name}": value for name, value in self._all.granted.figures().items() if name != "measured"},
                **{name if name == "measured" else f"real_{name}": value for name, value in self._all.real.figures().items()},
                "beyond_their_end": late,
            },
            status_above(late, Status.ATTENTION),
            self._confirmed,
            (ISSUED, *END_EVENTS),
            self._table(),
        )
        unseen = self._expired_of[Revocable.NOW.value]
        figures: dict[str, Cell] = {"expired_unconfirmed": self._expired.count}
        figures |= {f"revocable_{kind.value}": self._expired_of[kind.value] for kind in Revocable}
        figures["issued_before_the_period"] = self._expired_of[""]
        yield MetricResult("revocation.expired", figures, status_above(unseen, Status.ATTENTION), self._expired, ("credential.expired",))
        never = self._never.count
        yield MetricResult(
            "revocation.never",
            {"issued": self._issued.total(), "never_revocable": never},
            status_above(never, Status.ATTENTION),
            self._never,
            (ISSUED,),
        )

    def _table(self) -> Table:
        spans = [f"{what} {rank} (s)" for what in ("granted", "real") for rank in ("p50", "p95", "max")]
        rows = tuple(self._by_access[name].row(name) for name in sorted(self._by_access))
        return Table(columns=("access", "ended", *spans), rows=rows)

    def _issue(self, fact: EntryFact) -> None:
        self._issued[fact.data["revocable"]] += 1
        if fact.data["revocable"] == Revocable.NEVER:
            self._never.add(fact.id)
        self._add_open(fact, fact.data["issued_at"])

    def _doubt(self, fact: EntryFact) -> None:
        if fact.data["credential"] not in self.open:
            self._add_open(fact, fact.data["asked_at"])

    def _add_open(self, fact: EntryFact, since: str) -> None:
        data = fact.data
        self.open[data["credential"]] = OpenCredential(
            fact.job,
            fact.id,
            f"{data['resource']}:{data['action']}",
            parse_moment(since),
            parse_moment(data["expires_at"]),
            data["revocable"],
        )

    def _renew(self, fact: EntryFact) -> None:
        known = self.open.get(fact.data["credential"])
        if known is not None:
            self.open[fact.data["credential"]] = known._replace(expires_at=parse_moment(fact.data["expires_at"]))

    def _confirm(self, fact: EntryFact) -> None:
        known = self.open.pop(fact.data["credential"], None)
        if known is None:
            return
        self._confirmed.add(fact.id)
        for access in (self._all, self._by_access[known.access]):
            access.granted.add(seconds_between(known.issued_at, known.expires_at))
            access.real.add(seconds_between(known.issued_at, fact.at))
        if fact.at > known.expires_at + LATE_END_GRACE:
            self._outlived.add(fact.id)

    def _expire(self, fact: EntryFact) -> None:
        known = self.open.pop(fact.data["credential"], None)
        self._expired.add(fact.id)
        self._expired_of[known.revocable if known else ""] += 1
