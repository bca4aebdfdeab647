"""The state at the time of the report: active credentials, overdue revocations, open reviews, the ledger. No I/O, no clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import ClassVar

from justenough.domain.core.base_model import Message
from justenough.domain.evidence.credentials import LATE_END_GRACE, OpenCredential
from justenough.domain.evidence.report import Status, Table
from justenough.domain.evidence.statistics import (
    MAX_SHOWN,
    Distribution,
    MetricResult,
    Sample,
    count_result,
    seconds_between,
    status_above,
)
from justenough.domain.jobs.states import JobState, Revocable
from justenough.domain.ledger.events import EventType
from justenough.domain.ledger.hash_chain import UNDETECTABLE, LedgerReport
from justenough.domain.readmodel.views import ReviewView

MAX_REVIEW_AGE = timedelta(hours=24)


class LiveCredential(Message):
    """A credential that is not verified as revoked or expired, and its job."""

    credential: str
    job: str
    job_state: JobState | None
    """None if the store does not have the job."""
    task: str
    resource: str
    action: str
    issued_at: datetime
    expires_at: datetime
    revocable: Revocable
    known: bool
    """False if the credential may have been issued but no response arrived."""

    @property
    def entry(self) -> str:
        """The id of the ledger entry that records it."""
        kind = EventType.CREDENTIAL_ISSUED if self.known else EventType.CREDENTIAL_DOUBTED
        return f"{self.job}/{kind}/{self.credential}"


class LedgerState(Message):
    """The ledger as a whole."""

    entries: int
    hash: str | None
    verified: LedgerReport | None
    """None if the ledger has too many entries to verify it for a report."""


class CurrentState:
    """Counts active credentials by their problem, overdue revocations and open reviews."""

    RULES: ClassVar[dict[str, Callable[[LiveCredential, datetime], bool]]] = {
        "standing.after_end": lambda live, _: live.revocable is Revocable.NOW and live.job_state is not None and live.job_state.ended,
        "standing.beyond_end": lambda live, now: live.expires_at + LATE_END_GRACE < now,
        "standing.unknown_job": lambda live, _: live.job_state is None,
    }

    def __init__(self, *, now: datetime) -> None:
        self._now = now
        self._wrong = {key: Sample[LiveCredential]() for key in self.RULES}
        self._live, self._ages, self._unclosed = Sample[LiveCredential](), Distribution(), Sample[str]()
        self._overdue_jobs, self._overdue_ages = Sample[tuple[str, datetime]](), Distribution()
        self._reviews, self._late_reviews = Sample[ReviewView](), 0

    def add_live(self, live: LiveCredential) -> None:
        """Count an active credential; call in the order of issue."""
        self._live.add(live)
        self._ages.add(seconds_between(live.issued_at, self._now))
        for key, is_wrong in self.RULES.items():
            if is_wrong(live, self._now):
                self._wrong[key].add(live)

    def add_unclosed(self, credential: OpenCredential) -> None:
        """Count a credential that has no end in the ledger and is not listed as active."""
        self._unclosed.add(credential.entry)

    def add_overdue_job(self, job: str, since: datetime) -> None:
        """Count a job whose revocation has been overdue since `since`."""
        self._overdue_ages.add(seconds_between(since, self._now))
        self._overdue_jobs.add((job, since))

    def add_open_review(self, review: ReviewView) -> None:
        """Count a review that nobody has completed."""
        self._reviews.add(review)
        self._late_reviews += self._now - review.opened_at > MAX_REVIEW_AGE

    def metric_results(self) -> Iterator[MetricResult]:
        """Yield the results about active credentials, overdue revocations and open reviews."""
        for key, sample in self._wrong.items():
            yield count_result(key, "credentials", _entries(sample), above=Status.VIOLATION, table=self._credential_table(sample))
        yield count_result("standing.untold", "credentials", self._unclosed, above=Status.VIOLATION)
        figures = {"credentials": self._live.count, **self._ages.durations("age_")}
        yield MetricResult("standing.live", figures, seen=_entries(self._live), table=self._credential_table(self._live))

        overdue = self._overdue_jobs.count
        figures = {"jobs": overdue, "longest_seconds": self._overdue_ages.durations()["max_seconds"]}
        table = self._overdue_jobs.to_table(("job", "open for (s)"), lambda item: (item[0], self._seconds_since(item[1])))
        yield MetricResult("revocation.overdue_now", figures, status_above(overdue, Status.VIOLATION), table=table)

        figures = {"open": self._reviews.count, "open_too_long": self._late_reviews}
        status = status_above(self._late_reviews, Status.ATTENTION)
        opened = [f"{review.job_id}/{EventType.REVIEW_OPENED}/{review.request_id}" for review in self._reviews.first]
        columns = ("review of", "access", "emergency declared by", "may review", "age (s)")
        table = self._reviews.to_table(
            columns,
            lambda review: (
                review.request_id,
                f"{review.resource}:{review.action}",
                review.person,
                ", ".join(review.groups),
                self._seconds_since(review.opened_at),
            ),
        )
        yield MetricResult("emergency.open", figures, status, Sample(self._reviews.count, opened), table=table)

    def _credential_table(self, sample: Sample[LiveCredential]) -> Table | None:
        return sample.to_table(
            ("credential", "access", "job is", "task", "age (s)", "ends in (s)"),
            lambda live: (
                live.credential,
                f"{live.resource}:{live.action}",
                live.job_state.value if live.job_state else "(unknown job)",
                live.task,
                self._seconds_since(live.issued_at),
                round(seconds_between(self._now, live.expires_at), 3),
            ),
        )

    def _seconds_since(self, moment: datetime) -> float:
        return round(seconds_between(moment, self._now), 3)


def ledger_results(state: LedgerState, *, read: int) -> Iterator[MetricResult]:
    """Yield the results about the ledger itself. `read`: the entries that the report read."""
    yield MetricResult("ledger.entries", {"entries": state.entries, "read_for_this_period": read, "newest_hash": state.hash})
    report = state.verified
    if report is None:
        yield MetricResult("ledger.verified", {"verified": "no", "problems": None}, Status.ATTENTION)
    else:
        problems = Sample(len(report.problems), list(report.problems[:MAX_SHOWN]))
        table = problems.to_table(
            ("chain", "number", "fault", "what"), lambda problem: (problem.job, problem.seq, problem.fault.value, problem.message)
        )
        status, verified = status_above(problems.count, Status.VIOLATION), "sound" if report.sound else "not sound"
        if report.sound and set(report.unseen) - set(UNDETECTABLE):
            # Vault did not answer, for example.
            status, verified = Status.ATTENTION, "sound, but signatures of checkpoints were not verified"
        yield MetricResult(
            "ledger.verified", {"verified": verified, "problems": problems.count, "chains": report.jobs}, status, table=table
        )


def _entries(sample: Sample[LiveCredential]) -> Sample[str]:
    return Sample(sample.count, [live.entry for live in sample.first])
