"""What went another way than the ordinary one: emergencies and their reviews, second locks, jobs without a sandbox, strangers. No I/O, no clock.

Entries are known by name: a version that records none of a type has none of it, and its line says 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from justenough.domain.evidence.report import Cell, Status
from justenough.domain.evidence.statistics import EntryFact, EntrySample, MetricResult, status_above

REVIEWS = ("review.opened", "review.answered")
LOCKS = "lock.opened"
STARTED = "job.started"
SWEPT = "sweep.reported"


class ExceptionalEventMetrics:
    """Counts them. What is still open is `standing`'s."""

    def __init__(self) -> None:
        self._reviews = Counter[str]()
        self._seen_reviews, self._locks, self._bare, self._unknown = EntrySample(), EntrySample(), EntrySample(), EntrySample()
        self._started = 0

    @property
    def handlers(self) -> Mapping[str, Callable[[EntryFact], None]]:
        """What each type of entry means here."""
        opened, answered = REVIEWS
        return {opened: self._review, answered: self._answer_review, LOCKS: self._lock, STARTED: self._start, SWEPT: self._sweep}

    def metric_results(self) -> Iterator[MetricResult]:
        """Yield its lines."""
        figures: dict[str, Cell] = {name: self._reviews[name] for name in ("opened", "justified", "unjustified")}
        status = status_above(self._reviews["unjustified"], Status.ATTENTION)
        yield MetricResult("emergency.reviews", figures, status, self._seen_reviews, REVIEWS)
        yield MetricResult("emergency.locks", {"double_locked_issues": self._locks.count}, Status.OK, self._locks, (LOCKS,))
        bare, unknown = self._bare.count, self._unknown.count
        yield MetricResult(
            "machinery.sandbox_off",
            {"runs": self._started, "sandbox_off": bare},
            status_above(bare, Status.ATTENTION),
            self._bare,
            (STARTED,),
        )
        yield MetricResult(
            "machinery.sweep", {"of_no_known_job": unknown}, status_above(unknown, Status.ATTENTION), self._unknown, (SWEPT,)
        )

    def _review(self, fact: EntryFact) -> None:
        self._seen_reviews.add(fact.id)
        self._reviews["opened"] += 1

    def _answer_review(self, fact: EntryFact) -> None:
        self._seen_reviews.add(fact.id)
        self._reviews[fact.data["verdict"]] += 1

    def _lock(self, fact: EntryFact) -> None:
        self._locks.add(fact.id)

    def _start(self, fact: EntryFact) -> None:
        self._started += 1
        if fact.data["sandbox"] == "off":
            self._bare.add(fact.id)

    def _sweep(self, fact: EntryFact) -> None:
        self._unknown.add(fact.id)
