"""What is so now, whatever the period: credentials that live, revocations that are overdue, the state of the ledger. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from justenough.domain.core.base_model import Message
from justenough.domain.evidence.credentials import DOUBTED, ISSUED, LATE_END_GRACE, OpenCredential
from justenough.domain.evidence.report import Cell, Status, Table
from justenough.domain.evidence.statistics import MAX_SHOWN, Distribution, EntrySample, MetricResult, seconds_between, status_above
from justenough.domain.jobs.states import JobState
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.readmodel.views import ReviewView

CHECKPOINTED = "ledger.checkpointed"
REVIEW_OPENED = "review.opened"
MAX_REVIEW_AGE = timedelta(hours=24)


class LiveCredential(Message):
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


class CurrentState:
    """Counts credentials that live now by what is wrong with them."""

    RULES: tuple[tuple[str, Callable[[LiveCredential, datetime], bool]], ...] = (
        ("standing.after_end", lambda live, _: live.job_state is not None and live.job_state.ended),
        ("standing.beyond_end", lambda live, now: live.expires_at + LATE_END_GRACE < now),
        ("standing.unknown_job", lambda live, _: live.job_state is None),
    )

    def __init__(self, *, now: datetime) -> None:
        self._now = now
        self._wrong = {key: (EntrySample(), list[LiveCredential]()) for key, _ in self.RULES}
        self._untold = EntrySample()
        self._live, self._oldest = EntrySample(), list[LiveCredential]()
        self._ages = Distribution()
        self._open, self._open_reviews, self._late_reviews = EntrySample(), list[ReviewView](), 0
        self._overdue, self._overdue_jobs = Distribution(), list[tuple[str, datetime]]()

    def add_live(self, live: LiveCredential) -> None:
        """Look at one; they come in the order of their issue."""
        self._live.add(live.entry)
        self._ages.add(seconds_between(live.issued_at, self._now))
        if len(self._oldest) < MAX_SHOWN:
            self._oldest.append(live)
        for key, holds in self.RULES:
            if holds(live, self._now):
                seen, shown = self._wrong[key]
                seen.add(live.entry)
                shown += [live] if len(shown) < MAX_SHOWN else []

    def add_unclosed(self, credential: OpenCredential) -> None:
        """Count one that was issued, never ended, and is not shown to live."""
        self._untold.add(credential.entry)

    def add_overdue_job(self, job: str, since: datetime) -> None:
        """Count a job whose revocation is overdue, and since when it is open."""
        self._overdue.add(seconds_between(since, self._now))
        if len(self._overdue_jobs) < MAX_SHOWN:
            self._overdue_jobs.append((job, since))

    def add_open_review(self, review: ReviewView) -> None:
        """Count one that nobody has answered."""
        self._open.add(f"{review.job_id}/{REVIEW_OPENED}/{review.request_id}")
        self._late_reviews += self._now - review.opened_at > MAX_REVIEW_AGE
        if len(self._open_reviews) < MAX_SHOWN:
            self._open_reviews.append(review)

    def metric_results(self) -> Iterator[MetricResult]:
        """Yield the lines about credentials."""
        for key, (seen, shown) in self._wrong.items():
            yield MetricResult(
                key, {"credentials": seen.count}, status_above(seen.count, Status.VIOLATION), seen, table=self._table(shown, seen.count)
            )
        untold = self._untold.count
        yield MetricResult("standing.untold", {"credentials": untold}, status_above(untold, Status.VIOLATION), self._untold)
        ages = {f"age_{name}": value for name, value in self._ages.figures().items() if name != "measured"}
        yield MetricResult(
            "standing.live", {"credentials": len(self._ages), **ages}, seen=self._live, table=self._table(self._oldest, len(self._ages))
        )

    def overdue_result(self) -> MetricResult:
        """Return the line about revocations."""
        count = len(self._overdue)
        figures: dict[str, Cell] = {"jobs": count, "longest_seconds": self._overdue.figures()["max_seconds"]}
        rows = tuple((job, round(seconds_between(since, self._now), 3)) for job, since in self._overdue_jobs)
        table = Table(columns=("job", "open for (s)"), rows=rows, left_out=count - len(rows)) if rows else None
        return MetricResult("revocation.overdue_now", figures, status_above(count, Status.VIOLATION), table=table)

    def review_result(self) -> MetricResult:
        """Return the line about reviews."""
        figures: dict[str, Cell] = {"open": self._open.count, "open_too_long": self._late_reviews}
        rows = tuple(
            (
                one.request_id,
                f"{one.resource}:{one.action}",
                one.person,
                ", ".join(one.groups),
                round(seconds_between(one.opened_at, self._now), 3),
            )
            for one in self._open_reviews
        )
        columns = ("review of", "access", "emergency declared by", "may review", "age (s)")
        table = Table(columns=columns, rows=rows, left_out=self._open.count - len(rows)) if rows else None
        return MetricResult("emergency.open", figures, status_above(self._late_reviews, Status.ATTENTION), self._open, table=table)

    def _table(self, shown: list[LiveCredential], count: int) -> Table | None:
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

    def _times(self, one: LiveCredential) -> tuple[float, float]:
        return round(seconds_between(one.issued_at, self._now), 3), round(seconds_between(self._now, one.expires_at), 3)


def ledger_results(state: LedgerState, *, read: int, checkpoint: Checkpoint | None) -> Iterator[MetricResult]:
    """Yield the lines about the ledger itself."""
    yield MetricResult("ledger.entries", {"entries": state.entries, "read_for_this_period": read, "newest_hash": state.hash})
    report = state.verified
    if report is None:
        yield MetricResult("ledger.verified", {"verified": "no", "problems": None}, Status.ATTENTION)
    else:
        count = len(report.problems)
        table = Table(
            columns=("chain", "number", "fault", "what"),
            rows=tuple((one.job, one.seq, one.fault.value, one.message) for one in report.problems[:MAX_SHOWN]),
            left_out=max(count - MAX_SHOWN, 0),
        )
        figures: dict[str, Cell] = {"verified": "sound" if report.sound else "not sound", "problems": count, "chains": report.jobs}
        yield MetricResult("ledger.verified", figures, status_above(count, Status.VIOLATION), table=table if count else None)
    seen = EntrySample()
    if checkpoint is not None:
        seen.add(checkpoint.entry)
    last = checkpoint.at.isoformat() if checkpoint else "none"
    yield MetricResult("ledger.checkpoint", {"last_checkpoint": last}, Status.OK if checkpoint else Status.ATTENTION, seen, (CHECKPOINTED,))
