"""The console's long looks: at every chain of the ledger, at a period's evidence, at what of a job is alive. Each is shared by those who ask at once.

They change nothing. What keeps a processor busy takes turns, in a thread, so that the console answers others meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Literal, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread

from console.services.single_flight import Works
from console.temporal.client import Gateway
from justenough.domain.contracts.workflow_messages import ProofReport
from justenough.domain.evidence.aggregator import Period
from justenough.domain.evidence.report import Report
from justenough.domain.ledger.hash_chain import LedgerReport
from justenough.domain.rightsizing.usage import ActionUse, Key
from justenough.services import evidence_report
from justenough.services.dependencies import Deps

Unproved = Literal["pending", "overdue"]


DEFAULT = timedelta(days=30)


WHOLE = "ledger"
"""What a verification is about: there is one ledger."""


USED = "catalog"
"""What counting use is about: there is one catalog."""


USED_WITHIN = timedelta(days=90)


USES = 200
"""Actions whose use is counted, at most."""


REPORTS_KEPT = 6


PROOFS_AT_ONCE, PROOFS_KEPT, PROOFS_EACH = 8, 200, 20


T = TypeVar("T")


class Days(NamedTuple):
    """Days in UTC, both whole."""

    first: date
    last: date

    def period(self, *, now: datetime) -> Period:
        """Return from when until when that is; what is to come is not in it."""
        begin, end = (datetime.combine(day, time(), UTC) for day in (self.first, self.last + timedelta(days=1)))
        return Period(begin, min(end, now))


class Looks:
    """One per console, on its event loop."""

    def __init__(self, deps: Deps, gateway: Gateway) -> None:
        self._deps = deps
        # Each keeps a processor busy as long as it takes: the next one waits for its turn, here and in no thread.
        self._turn = CapacityLimiter(1)
        self.verification: Works[str, LedgerReport] = Works(self._verified)
        self.reports: Works[Days, Report] = Works(self._of_days, kept=REPORTS_KEPT)
        self.uses: Works[str, Mapping[Key, ActionUse]] = Works(self._uses)
        self.proofs: Works[str, ProofReport] = Works(gateway.prove, at_once=PROOFS_AT_ONCE, kept=PROOFS_KEPT, each=PROOFS_EACH)

    async def report(self, period: Period, *, now: datetime) -> Report:
        """Return the evidence report of a period, as of now. Raises InvalidInput where that is none, or too long."""
        installation = self._deps.settings.installation
        return await self._alone(partial(evidence_report.report, self._deps.store, period, installation=installation, now=now))

    async def close(self) -> None:
        """Wait for nothing any more."""
        for works in (self.verification, self.reports, self.uses, self.proofs):
            await works.close()

    async def _verified(self, _: str) -> LedgerReport:
        return await self._alone(self._deps.store.verify)

    async def _uses(self, _: str) -> Mapping[Key, ActionUse]:
        since = self._deps.now() - USED_WITHIN
        found = await self._alone(partial(self._deps.store.action_uses, since=since, limit=USES))
        return {Key(use.resource, use.action): use for use in found.items}

    async def _of_days(self, days: Days) -> Report:
        now = self._deps.now()
        return await self.report(days.period(now=now), now=now)

    async def _alone(self, does: Callable[[], T]) -> T:
        return await to_thread.run_sync(does, limiter=self._turn, abandon_on_cancel=True)
