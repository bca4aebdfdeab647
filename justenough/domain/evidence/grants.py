"""What policy said in the period, and which grants nobody came to fetch. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from justenough.domain.evidence.report import Cell, Status, Table
from justenough.domain.evidence.statistics import EntryFact, EntrySample, MetricResult, status_above

DECIDED = "access.decided"
FIRST_PHASES = frozenset({"start", "runtime"})
"""Phases in which a request is settled; later ones look again."""
SETTLING_PHASES = FIRST_PHASES | {"issue", "granted"}
"""Phases in which a denial takes a grant back."""
UNSEEN = "not observable"
NOBODY = "(no policy permits it)"


class GrantMetrics:
    """Follows each request that was granted to its first credential, or to its job's end."""

    def __init__(self) -> None:
        self._outcomes = Counter[str]()
        self._denied_by = Counter[str]()
        self._unfetched: dict[str, dict[str, str]] = {}
        """Job → request → the entry that granted it, until a credential is issued under it."""
        self._granted, self._used_entries = 0, 0
        self._allowed, self._denied, self._errors, self._unissued = EntrySample(), EntrySample(), EntrySample(), EntrySample()

    @property
    def handlers(self) -> Mapping[str, Callable[[EntryFact], None]]:
        """What each type of entry means here."""
        return {
            DECIDED: self._decide,
            "approval.decided": self._approve,
            "access.withdrawn": self._drop,
            "approval.withdrawn": self._take_back,
            "credential.issued": self._fetch,
            "credential.doubted": self._fetch,
            "credential.used": self._use,
            "job.ended": self._end,
        }

    def metric_results(self) -> Iterator[MetricResult]:
        """Yield its lines."""
        decided, allowed = self._outcomes.total(), self._outcomes["allowed"]
        share = round(allowed / decided, 4) if decided else None
        figures: dict[str, Cell] = {name: self._outcomes[name] for name in ("allowed", "needs_approval", "denied")}
        yield MetricResult(
            "policy.automatic", {"decided": decided, **figures, "auto_approved_share": share}, Status.OK, self._allowed, (DECIDED,)
        )
        rows = tuple((name, count) for name, count in sorted(self._denied_by.items(), key=lambda item: (-item[1], item[0])))
        table = Table(columns=("policy", "denials"), rows=rows)
        yield MetricResult("policy.denied", {"denied": self._denied.count}, Status.OK, self._denied, (DECIDED,), table)
        errors = self._errors.count
        yield MetricResult(
            "policy.errors", {"decisions_with_errors": errors}, status_above(errors, Status.ATTENTION), self._errors, (DECIDED,)
        )
        unissued = self._unissued.count
        yield MetricResult(
            "use.unissued", {"granted": self._granted, "never_issued": unissued}, Status.OK, self._unissued, (DECIDED, "approval.decided")
        )
        # Without a gateway nobody sees a credential used: that none was seen says nothing.
        yield MetricResult("use.unused", {"uses_observed": self._used_entries or UNSEEN, "issued_without_use": UNSEEN})

    def _decide(self, fact: EntryFact) -> None:
        data = fact.data
        if data["phase"] in FIRST_PHASES:
            self._outcomes[data["outcome"]] += 1
        if data["errors"]:
            self._errors.add(fact.id)
        if data["outcome"] == "denied":
            self._denied.add(fact.id)
            self._denied_by.update(data["policies"] or [NOBODY])
            if data["phase"] in SETTLING_PHASES:
                self._drop(fact)
        elif data["outcome"] == "allowed" and data["phase"] in FIRST_PHASES:
            self._allowed.add(fact.id)
            self._grant(fact)

    def _approve(self, fact: EntryFact) -> None:
        if fact.data["verdict"] == "approved":
            self._grant(fact)

    def _take_back(self, fact: EntryFact) -> None:
        if fact.data["verdict"] == "withdrawn":
            self._drop(fact)

    def _grant(self, fact: EntryFact) -> None:
        self._granted += 1
        self._unfetched.setdefault(fact.job, {})[fact.data["request"]] = fact.id

    def _drop(self, fact: EntryFact) -> None:
        self._unfetched.get(fact.job, {}).pop(fact.data["request"], None)

    def _fetch(self, fact: EntryFact) -> None:
        self._drop(fact)

    def _use(self, fact: EntryFact) -> None:
        del fact
        self._used_entries += 1

    def _end(self, fact: EntryFact) -> None:
        for entry in self._unfetched.pop(fact.job, {}).values():
            self._unissued.add(entry)
