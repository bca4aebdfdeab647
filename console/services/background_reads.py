"""The console's long looks: at every chain of the ledger, at a period's evidence, at what of a job is alive. Each is shared by those who ask at once.

They change nothing. What keeps a processor busy takes turns, in a thread, so that the console answers others meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread

from console.services.single_flight import SingleFlight
from console.temporal.client import TemporalGateway
from justenough.domain.contracts.workflow_messages import ProofReport
from justenough.domain.evidence.aggregator import ReportPeriod
from justenough.domain.evidence.report import Report
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.rightsizing.usage import AccessKey, ActionUse
from justenough.services import evidence_report
from justenough.services.dependencies import Deps

UnprovedRevocation = Literal["pending", "overdue"]


DEFAULT_REPORT_PERIOD = timedelta(days=30)


WHOLE_LEDGER = "ledger"
"""What a verification is about: there is one ledger."""


WHOLE_CATALOG = "catalog"
"""What counting use is about: there is one catalog."""


USAGE_PERIOD = timedelta(days=90)


MAX_COUNTED_ACTIONS = 200
"""Actions whose use is counted, at most."""


MAX_REPORTS_KEPT = 6


MAX_PROOF_CONCURRENCY, MAX_PROOFS_KEPT, MAX_PROOFS_PER_PERSON = 8, 200, 20


T = TypeVar("T")


class ReportDays(NamedTuple):
    """Days in UTC, both whole."""

    first: date
    last: date

    def period(self, *, now: datetime) -> ReportPeriod:
        """Return from when until when that is; what is to come is not in it."""
        begin, end = (datetime.combine(day, time(), UTC) for day in (self.first, self.last + timedelta(days=1)))
        return ReportPeriod(begin, min(end, now))


class BackgroundReads:
    """One per console, on its event loop."""

    def __init__(self, deps: Deps, gateway: TemporalGateway) -> None:
        self._deps = deps
        # Each keeps a processor busy as long as it takes: the next one waits for its turn, here and in no thread.
        self._limiter = CapacityLimiter(1)
        self.verification: SingleFlight[str, LedgerReport] = SingleFlight(self._verify_ledger)
        self.reports: SingleFlight[ReportDays, Report] = SingleFlight(self._report_of_days, max_outcomes=MAX_REPORTS_KEPT)
        self.uses: SingleFlight[str, Mapping[AccessKey, ActionUse]] = SingleFlight(self._count_uses)
        self.proofs: SingleFlight[str, ProofReport] = SingleFlight(
            gateway.prove, max_concurrency=MAX_PROOF_CONCURRENCY, max_outcomes=MAX_PROOFS_KEPT, max_per_person=MAX_PROOFS_PER_PERSON
        )

    async def report(self, period: ReportPeriod, *, now: datetime) -> Report:
        """Return the evidence report of a period, as of now. Raises InvalidInput where that is none, or too long."""
        installation = self._deps.settings.installation
        return await self._run_alone(
            partial(evidence_report.build_evidence_report, self._deps.store, period, installation=installation, now=now)
        )

    async def close(self) -> None:
        """Wait for nothing any more."""
        for works in (self.verification, self.reports, self.uses, self.proofs):
            await works.close()

    async def _verify_ledger(self, _: str) -> LedgerReport:
        return await self._run_alone(self._deps.store.ledger.verify)

    async def _count_uses(self, _: str) -> Mapping[AccessKey, ActionUse]:
        since = self._deps.now() - USAGE_PERIOD
        found = await self._run_alone(partial(self._deps.store.usage.action_uses, since=since, limit=MAX_COUNTED_ACTIONS))
        return {AccessKey(use.resource, use.action): use for use in found.items}

    async def _report_of_days(self, days: ReportDays) -> Report:
        now = self._deps.now()
        return await self.report(days.period(now=now), now=now)

    async def _run_alone(self, read: Callable[[], T]) -> T:
        return await to_thread.run_sync(read, limiter=self._limiter, abandon_on_cancel=True)
