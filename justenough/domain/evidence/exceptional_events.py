"""What went another way than the ordinary one: emergencies and their reviews, second locks, jobs without a sandbox, strangers. No I/O, no clock.

Entries are known by name: a version that records none of a type has none of it, and its line says 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from justenough.domain.evidence.report import Cell, Status
from justenough.domain.evidence.statistics import Fact, Found, Seen, status_above

REVIEWS = ("review.opened", "review.answered")
LOCKS = "lock.opened"
STARTED = "job.started"
SWEPT = "sweep.reported"


class Unusual:
    """Counts them. What is still open is `standing`'s."""

    def __init__(self) -> None:
        self._reviews = Counter[str]()
        self._seen_reviews, self._locks, self._bare, self._unknown = Seen(), Seen(), Seen(), Seen()
        self._started = 0

    @property
    def handlers(self) -> Mapping[str, Callable[[Fact], None]]:
        """What each type of entry means here."""
        opened, answered = REVIEWS
        return {opened: self._review, answered: self._reviewed, LOCKS: self._lock, STARTED: self._start, SWEPT: self._sweep}

    def found(self) -> Iterator[Found]:
        """Yield its lines."""
        figures: dict[str, Cell] = {name: self._reviews[name] for name in ("opened", "justified", "unjustified")}
        status = status_above(self._reviews["unjustified"], Status.ATTENTION)
        yield Found("emergency.reviews", figures, status, self._seen_reviews, REVIEWS)
        yield Found("emergency.locks", {"double_locked_issues": self._locks.count}, Status.OK, self._locks, (LOCKS,))
        bare, unknown = self._bare.count, self._unknown.count
        yield Found(
            "machinery.sandbox_off",
            {"runs": self._started, "sandbox_off": bare},
            status_above(bare, Status.ATTENTION),
            self._bare,
            (STARTED,),
        )
        yield Found("machinery.sweep", {"of_no_known_job": unknown}, status_above(unknown, Status.ATTENTION), self._unknown, (SWEPT,))

    def _review(self, fact: Fact) -> None:
        self._seen_reviews.add(fact.id)
        self._reviews["opened"] += 1

    def _reviewed(self, fact: Fact) -> None:
        self._seen_reviews.add(fact.id)
        self._reviews[fact.data["verdict"]] += 1

    def _lock(self, fact: Fact) -> None:
        self._locks.add(fact.id)

    def _start(self, fact: Fact) -> None:
        self._started += 1
        if fact.data["sandbox"] == "off":
            self._bare.add(fact.id)

    def _sweep(self, fact: Fact) -> None:
        self._unknown.add(fact.id)
