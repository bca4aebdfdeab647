"""What was tried in the period and did not count: answers and orders that did not hold. No I/O, no clock."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from justenough.domain.evidence.report import Status, Table
from justenough.domain.evidence.statistics import EntryFact, EntrySample, MetricResult, status_above

REJECTED = "approval.rejected"
REFUSED = "job.refused"
OWN_JOB_KIND = "for their own job"

REASON_KINDS: tuple[tuple[str, str], ...] = (
    ("not a ", "not readable"),
    ("a job that they launched", OWN_JOB_KIND),
    ("came of one that they launched", OWN_JOB_KIND),
    ("signature", "signature does not hold"),
    ("another person's", "somebody else's statement"),
    ("answered this request already", "answered before"),
    ("has answered already", "answered before"),
    ("digest", "about something else"),
    ("is for another", "about something else"),
    ("something else than what would run", "about something else"),
    ("is another", "about something else"),
    ("not what has been recorded", "about something else"),
    ("statement has expired", "not current"),
    ("from the future", "not current"),
    ("lives longer", "not current"),
    ("not pending", "nothing waits for it"),
    ("waits for an answer", "nothing waits for it"),
    ("needs one of the groups", "not entitled"),
    ("in no group", "not entitled"),
    ("does not answer for", "not entitled"),
    ("in none of the groups", "not entitled"),
    ("no person here", "not entitled"),
    ("delegate", "not entitled"),
    ("approved nothing here", "nothing waits for it"),
    ("InvalidInput", "not readable"),
)
"""What a reason contains, and its kind; the first that fits. A reason that fits none is `other`."""


def rejection_kind_of(why: str) -> str:
    """Return the kind of reason that an answer did not count for."""
    return next((kind for text, kind in REASON_KINDS if text in why), "other")


class RejectedAttemptMetrics:
    """Counts them."""

    def __init__(self) -> None:
        self._kinds = Counter[str]()
        self._rejected, self._own, self._orders = EntrySample(), EntrySample(), EntrySample()

    @property
    def handlers(self) -> Mapping[str, Callable[[EntryFact], None]]:
        """What each type of entry means here."""
        return {REJECTED: self._reject, REFUSED: self._refuse}

    def metric_results(self) -> Iterator[MetricResult]:
        """Yield its lines."""
        rows = tuple((kind, count) for kind, count in sorted(self._kinds.items(), key=lambda item: (-item[1], item[0])))
        table, rejected = Table(columns=("reason", "attempts"), rows=rows), self._rejected.count
        yield MetricResult(
            "attempts.rejected", {"rejected": rejected}, status_above(rejected, Status.ATTENTION), self._rejected, (REJECTED,), table
        )
        for key, seen, kind in (("attempts.own", self._own, REJECTED), ("attempts.orders", self._orders, REFUSED)):
            yield MetricResult(key, {"attempts": seen.count}, status_above(seen.count, Status.ATTENTION), seen, (kind,))

    def _reject(self, fact: EntryFact) -> None:
        kind = rejection_kind_of(fact.data["why"])
        self._kinds[kind] += 1
        self._rejected.add(fact.id)
        if kind == OWN_JOB_KIND:
            self._own.add(fact.id)

    def _refuse(self, fact: EntryFact) -> None:
        self._orders.add(fact.id)
