"""What went another way than the ordinary one: emergencies and their reviews, second locks, jobs without a sandbox, strangers. No I/O, no clock.

Entries are known by name: a version that records none of a type has none of it, and its line says 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from justenough.evidence.measures import SHOWN, Fact, Found, Seen, seconds, status_above
from justenough.evidence.report import Cell, Status, Table

REVIEWS = ("review.opened", "review.answered")
LOCKS = "lock.opened"
STARTED = "job.started"
SWEPT = "sweep.reported"
REVIEW_WITHIN = timedelta(hours=24)


class Review(NamedTuple):
    """One that waits for its answer."""

    entry: str
    job: str
    request: str
    name: str
    at: datetime


class Unusual:
    """Counts them, and keeps the reviews that are open."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Review] = {}
        self._reviews = Counter[str]()
        self._seen_reviews, self._locks, self._bare, self._unknown = Seen(), Seen(), Seen(), Seen()
        self._started = 0

    @property
    def handlers(self) -> Mapping[str, Callable[[Fact], None]]:
        """What each type of entry means here."""
        opened, answered = REVIEWS
        return {opened: self._review, answered: self._reviewed, LOCKS: self._lock, STARTED: self._start, SWEPT: self._sweep}

    def found(self, *, now: datetime) -> Iterator[Found]:
        """Yield its lines."""
        yield self._reviewing(now=now)
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

    def _reviewing(self, *, now: datetime) -> Found:
        waiting = sorted(self._open.values(), key=lambda review: review.at)
        late = sum(now - review.at > REVIEW_WITHIN for review in waiting)
        figures: dict[str, Cell] = {name: self._reviews[name] for name in ("opened", "justified", "unjustified")}
        rows = tuple((one.request, one.job, one.name, round(seconds(one.at, now) / 3600, 2)) for one in waiting[:SHOWN])
        table = Table(columns=("open review of", "job", "emergency declared by", "age (h)"), rows=rows, left_out=len(waiting) - len(rows))
        status = status_above(late + self._reviews["unjustified"], Status.ATTENTION)
        return Found(
            "emergency.reviews",
            {**figures, "open": len(waiting), "open_too_long": late},
            status,
            self._seen_reviews,
            REVIEWS,
            table if rows else None,
        )

    def _review(self, fact: Fact) -> None:
        self._seen_reviews.add(fact.id)
        self._reviews["opened"] += 1
        data = fact.data
        self._open[data["request"], data["person"]] = Review(fact.id, fact.job, data["request"], data["name"], fact.at)

    def _reviewed(self, fact: Fact) -> None:
        self._seen_reviews.add(fact.id)
        self._reviews[fact.data["verdict"]] += 1
        # Whoever answers is not who declared it, so one answer is for each emergency of that request.
        for key in [key for key in self._open if key[0] == fact.data["request"]]:
            del self._open[key]

    def _lock(self, fact: Fact) -> None:
        self._locks.add(fact.id)

    def _start(self, fact: Fact) -> None:
        self._started += 1
        if fact.data["sandbox"] == "off":
            self._bare.add(fact.id)

    def _sweep(self, fact: Fact) -> None:
        self._unknown.add(fact.id)
