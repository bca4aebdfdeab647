"""What came of a replay: each decision as it was beside what it would be, and the count of it all. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal, Self

from justenough.model import Message
from justenough.policy import TOP

DENIED = TOP + 1

Verdict = Literal["same", "looser", "tighter", "unknown"]


class Said(Message):
    """What policy said, or says."""

    outcome: str
    tier: int
    policies: tuple[str, ...]
    policy_digest: str

    @property
    def strictness(self) -> int:
        """0 for allowed, then the tier, then denied."""
        return {"allowed": 0, "denied": DENIED}.get(self.outcome, self.tier)


class Replayed(Message):
    """One recorded decision beside what it would be now."""

    position: int
    at: str
    job: str
    job_name: str = ""
    request: str
    phase: str
    resource: str = ""
    action: str = ""
    verdict: Verdict
    then: Said
    now: Said | None = None
    """None where it cannot be told."""
    lacks: tuple[str, ...] = ()
    """What the ledger does not hold of what this was decided from, and could matter now."""
    moved: tuple[str, ...] = ()
    """What the catalog says otherwise of the resource now; `resource` or `action` where it does not have it any more."""


class ReplayReport(Message):
    """What came of a replay."""

    since: str
    policy_digest: str
    """Of the policies that decided again."""
    decisions: int
    requests: int
    same: int
    looser: int
    tighter: int
    unknown: int
    lacking: dict[str, int]
    """How many decisions lack what."""
    items: tuple[Replayed, ...]
    """All but the same ones, in the ledger's order."""


@dataclass(slots=True)
class Tally:
    """Counts what a replay says, and keeps what is not the same."""

    since: str
    digest: str
    decisions: int = 0
    requests: set[str] = field(default_factory=set)
    verdicts: Counter[str] = field(default_factory=Counter)
    lacking: Counter[str] = field(default_factory=Counter)
    items: list[Replayed] = field(default_factory=list)

    def add(self, replayed: Replayed) -> Self:
        """Count one more."""
        self.decisions += 1
        self.requests.add(replayed.request)
        self.verdicts[replayed.verdict] += 1
        self.lacking.update(replayed.lacks)
        if replayed.verdict != "same":
            self.items.append(replayed)
        return self

    def report(self) -> ReplayReport:
        """Return it as it is shown."""
        counts = {verdict: self.verdicts[verdict] for verdict in ("same", "looser", "tighter", "unknown")}
        return ReplayReport(
            since=self.since,
            policy_digest=self.digest,
            decisions=self.decisions,
            requests=len(self.requests),
            lacking=dict(sorted(self.lacking.items())),
            items=tuple(self.items),
            **counts,
        )


def verdict(then: Said, now: Said) -> Verdict:
    """Return how what policy says now compares with what it said."""
    if then.strictness == now.strictness:
        return "same"
    return "looser" if now.strictness < then.strictness else "tighter"
