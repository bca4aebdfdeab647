"""What is so now, whatever the period: credentials that live, revocations that are overdue, the state of the ledger. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from justenough.domain.core.base_model import Message
from justenough.domain.evidence.credentials import DOUBTED, GRACE, ISSUED, Open
from justenough.domain.evidence.report import Cell, Status, Table
from justenough.domain.evidence.statistics import SHOWN, Found, Seen, Spread, seconds, status_above
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.readmodel.views import ReviewView

CHECKPOINTED = "ledger.checkpointed"
REVIEW_OPENED = "review.opened"
REVIEW_WITHIN = timedelta(hours=24)


class Live(Message):
    """A credential that is not shown to be dead, and its job as far as it is known."""

    credential: str
    job: str
    job_state: JobState | None
    """None where no such job is known."""
    task: str
    resource: str
    action: str
    issued_at: datetime
    expires_at: datetime
    known: bool
    """Whether anyone learned what it is; else it may have been issued."""

    @property
    def entry(self) -> str:
        """The ledger entry that it was recorded by."""
        return f"{self.job}/{ISSUED if self.known else DOUBTED}/{self.credential}"


class LedgerState(Message):
    """The ledger as a whole."""

    entries: int
    hash: str | None
    verified: LedgerReport | None
    """None where it has too many entries to be looked at for a report."""


class Checkpoint(NamedTuple):
    """The newest one of the period."""

    entry: str
    at: datetime


class Standing:
    """Counts credentials that live now by what is wrong with them."""

    RULES: tuple[tuple[str, Callable[[Live, datetime], bool]], ...] = (
        ("standing.after_end", lambda live, _: live.job_state is not None and live.job_state.ended),
        ("standing.beyond_end", lambda live, now: live.expires_at + GRACE < now),
        ("standing.unknown_job", lambda live, _: live.job_state is None),
    )

    def __init__(self, *, now: datetime) -> None:
        self._now = now
        self._wrong = {key: (Seen(), list[Live]()) for key, _ in self.RULES}
        self._untold = Seen()
        self._live, self._oldest = Seen(), list[Live]()
        self._ages = Spread()
        self._open, self._open_reviews, self._late_reviews = Seen(), list[ReviewView](), 0
        self._overdue, self._overdue_jobs = Spread(), list[tuple[str, datetime]]()

    def take(self, live: Live) -> None:
        """Look at one; they come in the order of their issue."""
        self._live.add(live.entry)
        self._ages.add(seconds(live.issued_at, self._now))
        if len(self._oldest) < SHOWN:
            self._oldest.append(live)
        for key, holds in self.RULES:
            if holds(live, self._now):
                seen, shown = self._wrong[key]
                seen.add(live.entry)
                shown += [live] if len(shown) < SHOWN else []

    def take_untold(self, credential: Open) -> None:
        """Count one that was issued, never ended, and is not shown to live."""
        self._untold.add(credential.entry)

    def take_overdue(self, job: str, since: datetime) -> None:
        """Count a job whose revocation is overdue, and since when it is open."""
        self._overdue.add(seconds(since, self._now))
        if len(self._overdue_jobs) < SHOWN:
            self._overdue_jobs.append((job, since))

    def take_review(self, review: ReviewView) -> None:
        """Count one that nobody has answered."""
        self._open.add(f"{review.job_id}/{REVIEW_OPENED}/{review.request_id}")
        self._late_reviews += self._now - review.opened_at > REVIEW_WITHIN
        if len(self._open_reviews) < SHOWN:
            self._open_reviews.append(review)

    def found(self) -> Iterator[Found]:
        """Yield the lines about credentials."""
        for key, (seen, shown) in self._wrong.items():
            yield Found(
                key, {"credentials": seen.count}, status_above(seen.count, Status.VIOLATION), seen, table=self._table(shown, seen.count)
            )
        untold = self._untold.count
        yield Found("standing.untold", {"credentials": untold}, status_above(untold, Status.VIOLATION), self._untold)
        ages = {f"age_{name}": value for name, value in self._ages.figures().items() if name != "measured"}
        yield Found(
            "standing.live", {"credentials": len(self._ages), **ages}, seen=self._live, table=self._table(self._oldest, len(self._ages))
        )

    def overdue(self) -> Found:
        """Return the line about revocations."""
        count = len(self._overdue)
        figures: dict[str, Cell] = {"jobs": count, "longest_seconds": self._overdue.figures()["max_seconds"]}
        rows = tuple((job, round(seconds(since, self._now), 3)) for job, since in self._overdue_jobs)
        table = Table(columns=("job", "open for (s)"), rows=rows, left_out=count - len(rows)) if rows else None
        return Found("revocation.overdue_now", figures, status_above(count, Status.VIOLATION), table=table)

    def reviews(self) -> Found:
        """Return the line about reviews."""
        figures: dict[str, Cell] = {"open": self._open.count, "open_too_long": self._late_reviews}
        rows = tuple(
            (one.request_id, f"{one.resource}:{one.action}", one.person, ", ".join(one.groups), round(seconds(one.opened_at, self._now), 3))
            for one in self._open_reviews
        )
        columns = ("review of", "access", "emergency declared by", "may review", "age (s)")
        table = Table(columns=columns, rows=rows, left_out=self._open.count - len(rows)) if rows else None
        return Found("emergency.open", figures, status_above(self._late_reviews, Status.ATTENTION), self._open, table=table)

    def _table(self, shown: list[Live], count: int) -> Table | None:
        if not shown:
            return None
        rows = tuple(
            (
                one.credential,
                f"{one.resource}:{one.action}",
                one.job_state.value if one.job_state else "(unknown job)",
                one.task,
                *self._times(one),
            )
            for one in shown
        )
        columns = ("credential", "access", "job is", "task", "age (s)", "ends in (s)")
        return Table(columns=columns, rows=rows, left_out=count - len(rows))

    def _times(self, one: Live) -> tuple[float, float]:
        return round(seconds(one.issued_at, self._now), 3), round(seconds(self._now, one.expires_at), 3)


def ledger_lines(state: LedgerState, *, read: int, checkpoint: Checkpoint | None) -> Iterator[Found]:
    """Yield the lines about the ledger itself."""
    yield Found("ledger.entries", {"entries": state.entries, "read_for_this_period": read, "newest_hash": state.hash})
    report = state.verified
    if report is None:
        yield Found("ledger.verified", {"verified": "no", "problems": None}, Status.ATTENTION)
    else:
        count = len(report.problems)
        table = Table(
            columns=("chain", "number", "fault", "what"),
            rows=tuple((one.job, one.seq, one.fault.value, one.message) for one in report.problems[:SHOWN]),
            left_out=max(count - SHOWN, 0),
        )
        figures: dict[str, Cell] = {"verified": "sound" if report.sound else "not sound", "problems": count, "chains": report.jobs}
        yield Found("ledger.verified", figures, status_above(count, Status.VIOLATION), table=table if count else None)
    seen = Seen()
    if checkpoint is not None:
        seen.add(checkpoint.entry)
    last = checkpoint.at.isoformat() if checkpoint else "none"
    yield Found("ledger.checkpoint", {"last_checkpoint": last}, Status.OK if checkpoint else Status.ATTENTION, seen, (CHECKPOINTED,))
