"""The console's long reads: ledger verification, evidence reports, usage counts, proofs; and sweeps. Concurrent callers share one run.

All but sweeps change nothing. Reads that keep a processor busy run one at a time in a thread, so that the console can still answer requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread

from console.services.checkpoints import verify_ledger
from console.services.single_flight import SingleFlight
from console.temporal.client import TemporalGateway
from justenough.adapters.store.repository import iterate_pages
from justenough.domain.contracts.workflow_messages import ProofReport, SweepReport
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

T = TypeVar("T")


class ReportDays(NamedTuple):
    """Whole days in UTC, first and last day included."""

    first: date
    last: date

    def period(self, *, now: datetime) -> ReportPeriod:
        """Return the period of these days, cut off at `now`."""
        begin, end = (datetime.combine(day, time(), UTC) for day in (self.first, self.last + timedelta(days=1)))
        return ReportPeriod(begin, min(end, now))


class BackgroundReads:
    """The long reads of one console, on its event loop, and sweeps."""

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
            lambda _: self._run_alone(partial(verify_ledger, deps)), now=deps.now
        )
        self.reports: SingleFlight[ReportDays, Report] = SingleFlight(report_days, now=deps.now, max_outcomes=MAX_REPORTS_KEPT)
        self.uses: SingleFlight[str, Mapping[AccessKey, ActionUse]] = SingleFlight(self._count_uses, now=deps.now)
        self.proofs: SingleFlight[str, ProofReport] = SingleFlight(
            prove, now=deps.now, max_concurrency=MAX_PROOF_CONCURRENCY, max_outcomes=MAX_PROOFS_KEPT, max_per_person=MAX_PROOFS_PER_PERSON
        )
        self.sweeps: SingleFlight[str, SweepReport] = SingleFlight(sweep, now=deps.now)

    async def report(self, period: ReportPeriod, *, now: datetime) -> Report:
        """Build the evidence report of a period, as of `now`. Raises InvalidInput if the period is empty or too long."""
        installation = self._deps.settings.installation
        return await self._run_alone(
            partial(evidence_report.build_evidence_report, self._deps.store, period, installation=installation, now=now)
        )

    async def close(self) -> None:
        """Cancel everything that is still running."""
        for works in (self.verification, self.reports, self.uses, self.proofs, self.sweeps):
            await works.close()

    async def _count_uses(self, _: str) -> Mapping[AccessKey, ActionUse]:
        since = self._deps.now() - USAGE_PERIOD
        read = self._deps.store.usage.action_uses
        uses = await self._run_alone(lambda: tuple(iterate_pages(lambda cursor: read(since=since, cursor=cursor))))
        return {AccessKey(use.resource, use.action): use for use in uses}

    async def _run_alone(self, read: Callable[[], T]) -> T:
        return await to_thread.run_sync(read, limiter=self._limiter, abandon_on_cancel=True)
