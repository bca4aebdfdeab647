"""Counts policy decisions of the period, and the grants under which no credential was issued. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

from justenough.domain.evidence.approvals import APPROVING_EVENTS
from justenough.domain.evidence.report import Status
from justenough.domain.evidence.statistics import EntryFact, MetricResult, Sample, count_result, count_table
from justenough.domain.ledger.events import EventType

FIRST_PHASES = frozenset({"start", "runtime"})
"""Phases in which policy first decides a request; in later ones it decides again."""
SETTLING_PHASES = FIRST_PHASES | {"issue", "granted"}
"""Phases in which a denial withdraws a grant."""
NOT_OBSERVABLE = "not observable"
NO_POLICY = "(no policy permits it)"


class GrantMetrics:
    """Follows each grant until its first credential is issued, or until its job ends."""

    types: ClassVar = (
        EventType.ACCESS_DECIDED,
        *APPROVING_EVENTS,
        EventType.ACCESS_WITHDRAWN,
        EventType.APPROVAL_WITHDRAWN,
        EventType.CREDENTIAL_ISSUED,
        EventType.CREDENTIAL_DOUBTED,
        EventType.CREDENTIAL_USED,
        EventType.JOB_ENDED,
    )

    def __init__(self) -> None:
        self._outcomes = Counter[str]()
        self._denied_by = Counter[str]()
        self._unfetched: dict[str, dict[str, str]] = {}
        """Job → request → the entry that granted it, until a credential is issued under it."""
        self._granted, self._uses = 0, 0
        self._allowed, self._denied, self._errors, self._unissued = Sample[str](), Sample[str](), Sample[str](), Sample[str]()

    def add(self, fact: EntryFact) -> None:
        match fact.kind:
            case "access.decided":
                self._count_decision(fact)
            case "approval.decided" | "approval.escalated" if fact.data.get("verdict") == "approved":
                self._add_grant(fact)
            case "approval.withdrawn" if fact.data["verdict"] == "withdrawn":
                self._remove_grant(fact)
            case "access.withdrawn" | "credential.issued" | "credential.doubted":
                self._remove_grant(fact)
            case "credential.used":
                self._uses += 1
            case "job.ended":
                for entry in self._unfetched.pop(fact.job, {}).values():
                    self._unissued.add(entry)

    def metric_results(self) -> Iterator[MetricResult]:
        types, decided = (EventType.ACCESS_DECIDED,), self._outcomes.total()
        outcomes = {name: self._outcomes[name] for name in ("allowed", "needs_approval", "denied")}
        # Rounded down, so that 1 means all.
        share = 10_000 * outcomes["allowed"] // decided / 10_000 if decided else None
        figures = {"decided": decided, **outcomes, "auto_approved_share": share}
        yield MetricResult("policy.automatic", figures, Status.OK, self._allowed, types)
        yield count_result("policy.denied", "denied", self._denied, types, table=count_table(("policy", "denials"), self._denied_by))
        yield count_result("policy.errors", "decisions_with_errors", self._errors, types, above=Status.ATTENTION)
        unissued = {"granted": self._granted, "never_issued": self._unissued.count}
        yield MetricResult("use.unissued", unissued, Status.OK, self._unissued, (*types, *APPROVING_EVENTS))
        # Only a gateway observes uses, so a credential without a recorded use may still have been used.
        yield MetricResult("use.unused", {"uses_observed": self._uses or NOT_OBSERVABLE, "issued_without_use": NOT_OBSERVABLE})

    def _count_decision(self, fact: EntryFact) -> None:
        data, is_first = fact.data, fact.data["phase"] in FIRST_PHASES
        if is_first:
            self._outcomes[data["outcome"]] += 1
        if data["errors"]:
            self._errors.add(fact.id)
        if data["outcome"] == "denied":
            self._denied.add(fact.id)
            self._denied_by.update(data["policies"] or [NO_POLICY])
            if data["phase"] in SETTLING_PHASES:
                self._remove_grant(fact)
        elif data["outcome"] == "allowed" and is_first:
            self._allowed.add(fact.id)
            self._add_grant(fact)

    def _add_grant(self, fact: EntryFact) -> None:
        self._granted += 1
        self._unfetched.setdefault(fact.job, {})[fact.data["request"]] = fact.id

    def _remove_grant(self, fact: EntryFact) -> None:
        self._unfetched.get(fact.job, {}).pop(fact.data["request"], None)
