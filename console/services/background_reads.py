"""The console's long reads: ledger verification, evidence reports, usage counts, proofs; and sweeps. Concurrent callers share one run.

All but sweeps change nothing. Reads that keep a processor busy run one at a time in a thread, so that the console can still answer requests.
Pages show their progress and outcomes, which are kept in memory only and so are not evidence.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Generic, Literal, NamedTuple, TypeVar

import structlog
from anyio import CapacityLimiter, to_thread

from console.services.checkpoints import verify_ledger
from console.temporal.client import TemporalGateway
from justenough.adapters.store.paging import iterate_pages
from justenough.domain.contracts.workflow_messages import ProofReport, SweepReport
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.evidence.report import Report
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.rightsizing.usage import AccessKey, ActionUse
from justenough.services import evidence_report
from justenough.services.dependencies import Deps
from justenough.services.signed_reports import REMEDY, UnsignedReport, new_nonce, verified_report

RevocationFilter = Literal["pending", "confirmed", "residual", "overdue"]
DEFAULT_REPORT_PERIOD = timedelta(days=30)
WHOLE_LEDGER, WHOLE_CATALOG, WHOLE_INSTALLATION = "ledger", "catalog", "installation"
USAGE_PERIOD = timedelta(days=90)
MAX_REPORTS_KEPT = 6
MAX_PROOF_CONCURRENCY, MAX_PROOFS_KEPT, MAX_PROOFS_PER_PERSON = 8, 200, 20

WORK_FAILED_TEXT = "unexpected error; the console's log has the details"

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

log = structlog.get_logger()


class Busy(RetryLater):
    """A person has too much work that is still running."""


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """One piece of work, running or done."""

    began: datetime
    by: str
    """Login name of the person who started it."""
    ended: datetime | None = None
    outcome: T | None = None
    error: JustEnoughError | None = None

    @property
    def is_running(self) -> bool:
        return self.ended is None

    @property
    def seconds(self) -> float:
        """The duration of the work in seconds; 0 while it runs."""
        return (self.ended - self.began).total_seconds() if self.ended else 0.0


class SingleFlight(Generic[K, T]):
    """Work of one kind, by key. Belongs to one event loop."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[T]],
        *,
        now: Callable[[], datetime],
        max_concurrency: int = 1,
        max_outcomes: int = 1,
        max_per_person: int = 4,
    ) -> None:
        """Set the clock and the limits: how many runs at the same time, how many outcomes to keep, and how many unfinished runs per person, so
        that one person cannot block the others.
        """
        self._work, self._now, self._max_outcomes, self._max_per_person = work, now, max_outcomes, max_per_person
        self._semaphore = asyncio.Semaphore(max_concurrency)
        self._works: OrderedDict[K, Work[T]] = OrderedDict()
        self._tasks: dict[K, asyncio.Task[Work[T]]] = {}

    def start(self, key: K, *, by: str) -> Work[T]:
        """Start the work unless it is running; return it. Raises Busy."""
        if key not in self._tasks:
            if sum(self._works[other].by == by for other in self._tasks) >= self._max_per_person:
                raise Busy(
                    f"{self._max_per_person} checks or reports that you started are still running, which is the maximum; "
                    "try again when one has ended"
                )
            begun = self._works[key] = Work(self._now(), by)
            self._works.move_to_end(key)
            self._tasks[key] = asyncio.create_task(self._run(key, begun))
            self._tasks[key].add_done_callback(lambda _: self._tasks.pop(key, None))
            # Drop the oldest outcomes; work that is running stays.
            ended = [other for other, work in self._works.items() if not work.is_running]
            for other in ended[: max(0, len(self._works) - self._max_outcomes)]:
                del self._works[other]
        return self._works[key]

    def get(self, key: K) -> Work[T] | None:
        """Return the work of a key, running or done; None if it was never started or its outcome has been dropped."""
        return self._works.get(key)

    def items(self) -> tuple[tuple[K, Work[T]], ...]:
        """Return all work that is running, and the outcomes that are still kept, newest first."""
        # Copy the values first: pages call this from other threads.
        return tuple(reversed(tuple(self._works.items())))

    async def result(self, key: K, *, by: str) -> T:
        """Start the work unless it is running, and return its outcome. Raises the error of the work, Busy."""
        self.start(key, by=by)
        # A caller that is cancelled must not cancel the work for the others.
        done = await asyncio.shield(self._tasks[key])
        if done.error is not None:
            raise done.error
        assert done.outcome is not None, "work without an error has an outcome"
        return done.outcome

    async def close(self) -> None:
        for task in tuple(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _run(self, key: K, begun: Work[T]) -> Work[T]:
        async with self._semaphore:
            try:
                done = replace(begun, outcome=await self._work(key))
            except JustEnoughError as error:
                done = replace(begun, error=error)
            except Exception as error:  # noqa: BLE001 - every caller must get an outcome
                # The error's text may contain input of a caller; its type does not.
                log.error("work failed", error=type(error).__name__)  # noqa: TRY400 - the traceback would contain that text
                done = replace(begun, error=JustEnoughError(WORK_FAILED_TEXT))
        done = self._works[key] = replace(done, ended=self._now())
        return done


class ReportDays(NamedTuple):
    """Whole days in UTC, first and last day included."""

    first: date
    last: date

    def period(self, *, now: datetime) -> ReportPeriod:
        """Return the period of these days, cut off at `now`."""
        begin, end = (datetime.combine(day, time(), UTC) for day in (self.first, self.last + timedelta(days=1)))
        return ReportPeriod(begin, min(end, now))


class BackgroundReads:
    """Runs the long reads of one console, and the sweeps that people start. Used on the event loop."""

    def __init__(self, deps: Deps, gateway: TemporalGateway) -> None:
        self._deps = deps

        async def prove(job: str) -> ProofReport:
            nonce = new_nonce()
            signed = await gateway.prove(job, nonce=nonce)
            report = await to_thread.run_sync(partial(verified_report, deps, signed, ProofReport, nonce=nonce))
            if report.job != job:
                raise UnsignedReport(f"a worker signed the answer for another job; {REMEDY}")
            return report

        async def sweep(_: str) -> SweepReport:
            nonce = new_nonce()
            signed = await gateway.sweep(nonce=nonce)
            return await to_thread.run_sync(partial(verified_report, deps, signed, SweepReport, nonce=nonce))

        async def report_days(days: ReportDays) -> Report:
            now = deps.now()
            return await self.report(days.period(now=now), now=now)

        # Each keeps a processor busy. The next one waits for the limiter, which takes no thread.
        self._limiter = CapacityLimiter(1)
        self.verification: SingleFlight[str, LedgerReport] = SingleFlight(
            lambda _: self.run_alone(partial(verify_ledger, deps)), now=deps.now
        )
        self.reports: SingleFlight[ReportDays, Report] = SingleFlight(report_days, now=deps.now, max_outcomes=MAX_REPORTS_KEPT)
        self.uses: SingleFlight[str, Mapping[AccessKey, ActionUse]] = SingleFlight(self._count_uses, now=deps.now)
        self.proofs: SingleFlight[str, ProofReport] = SingleFlight(
            prove, now=deps.now, max_concurrency=MAX_PROOF_CONCURRENCY, max_outcomes=MAX_PROOFS_KEPT, max_per_person=MAX_PROOFS_PER_PERSON
        )
        self.sweeps: SingleFlight[str, SweepReport] = SingleFlight(sweep, now=deps.now)

    async def report(self, period: ReportPeriod, *, now: datetime) -> Report:
        """Build the evidence report of a period, as of `now`. Raises InvalidInput if the period is empty or too long."""
        installation, verify = self._deps.settings.installation, partial(verify_ledger, self._deps)
        return await self.run_alone(
            partial(evidence_report.build_evidence_report, self._deps.store, period, installation=installation, now=now, verify=verify)
        )

    async def close(self) -> None:
        for works in (self.verification, self.reports, self.uses, self.proofs, self.sweeps):
            await works.close()

    async def _count_uses(self, _: str) -> Mapping[AccessKey, ActionUse]:
        since = self._deps.now() - USAGE_PERIOD
        read = self._deps.store.usage.action_uses
        uses = await self.run_alone(lambda: tuple(iterate_pages(lambda cursor: read(since=since, cursor=cursor))))
        return {AccessKey(use.resource, use.action): use for use in uses}

    async def run_alone(self, read: Callable[[], T]) -> T:
        """Run a long read in a thread, after the long reads that came before it."""
        return await to_thread.run_sync(read, limiter=self._limiter, abandon_on_cancel=True)
