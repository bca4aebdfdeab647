"""Folds a period's entries, one at a time, into the report. Keeps what is open and what is counted, never the entries. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from justenough.domain.evidence.approvals import ApprovalMetrics
from justenough.domain.evidence.credentials import CredentialMetrics, OpenCredential
from justenough.domain.evidence.current_state import CHECKPOINTED, Checkpoint, CurrentState, LedgerState, ledger_results
from justenough.domain.evidence.exceptional_events import ExceptionalEventMetrics
from justenough.domain.evidence.frameworks import ITEMS, MAPPING
from justenough.domain.evidence.grants import GrantMetrics
from justenough.domain.evidence.metric_definitions import METRICS, SECTIONS
from justenough.domain.evidence.rejected_attempts import RejectedAttemptMetrics
from justenough.domain.evidence.report import Evidence, Item, Line, Report, Section, Status
from justenough.domain.evidence.revocations import RevocationMetrics
from justenough.domain.evidence.statistics import EntryFact, MetricResult
from justenough.domain.ledger.hash_chain import moment_text

CURRENT_STATE_COMMANDS = {"emergency.open": "justenough review list"}
"""What lists what a line about now is about, where that is no credentials."""
STATUS_ORDER = (Status.OK, Status.ATTENTION, Status.VIOLATION)


class ReportPeriod(NamedTuple):
    """From `since` to just before `until`."""

    since: datetime
    until: datetime


class EvidenceAggregator:
    """Takes entries in the ledger's order; `report` may be asked once they are all in."""

    def __init__(self, period: ReportPeriod) -> None:
        self._period = period
        self._credentials, self._revocations, self._approvals = CredentialMetrics(), RevocationMetrics(), ApprovalMetrics()
        self._grants, self._attempts, self._unusual = GrantMetrics(), RejectedAttemptMetrics(), ExceptionalEventMetrics()
        self._checkpoint: Checkpoint | None = None
        self._entries = 0
        self._handlers: dict[str, list[Callable[[EntryFact], None]]] = defaultdict(list)
        counting = (self._credentials, self._revocations, self._approvals, self._grants, self._attempts, self._unusual)
        for handlers in (*(one.handlers for one in counting), {CHECKPOINTED: self._record_checkpoint}):
            for kind, handle in handlers.items():
                self._handlers[kind].append(handle)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of entries that say something here."""
        return tuple(self._handlers)

    @property
    def open_credentials(self) -> Mapping[str, OpenCredential]:
        """Credentials that were issued in the period and have no end in it, by id."""
        return self._credentials.open

    def add_entry(self, job: str, entry: str, kind: str, at: str, data: str) -> None:
        """Fold one entry, as it is stored."""
        self._entries += 1
        handlers = self._handlers.get(kind)
        if handlers:
            fact = EntryFact(job, entry, at, data)
            for handle in handlers:
                handle(fact)

    def report(self, *, installation: str, now: datetime, current_state: CurrentState, ledger: LedgerState) -> Report:
        """Return the report, with what is so now beside what was in the period."""
        found = {one.key: one for one in self._metric_results(current_state, ledger)}
        lines = [self._build_line(key, found[key]) for key in METRICS]
        sections = tuple(
            Section(key=key, title=title, lines=tuple(line for line in lines if line.key.startswith(f"{key}.")))
            for key, title in SECTIONS.items()
        )
        return Report(
            installation=installation,
            since=self._period.since,
            until=self._period.until,
            generated_at=now,
            entries=self._entries,
            status=worst_status(line.status for line in lines),
            sections=sections,
        )

    def _metric_results(self, current_state: CurrentState, ledger: LedgerState) -> Iterator[MetricResult]:
        until = self._period.until
        yield from current_state.metric_results()
        yield current_state.overdue_result()
        yield current_state.review_result()
        yield from self._credentials.metric_results()
        yield from self._revocations.metric_results(until=until)
        yield from self._approvals.metric_results(until=until)
        yield from self._grants.metric_results()
        yield from self._attempts.metric_results()
        yield from self._unusual.metric_results()
        yield from ledger_results(ledger, read=self._entries, checkpoint=self._checkpoint)

    def _build_line(self, key: str, found: MetricResult) -> Line:
        told = METRICS[key]
        items = tuple(Item(id=item, framework=ITEMS[item][0], name=ITEMS[item][1]) for item in MAPPING[key])
        evidence = Evidence(count=found.seen.count, ids=tuple(found.seen.ids), command=self._command(found))
        return Line(
            key=key,
            title=told.title,
            figures=found.figures,
            table=found.table,
            definition=told.definition,
            status=found.status,
            rule=told.rule,
            shows=told.shows,
            items=items,
            evidence=evidence,
        )

    def _command(self, found: MetricResult) -> str | None:
        if found.seen.count <= len(found.seen.ids):
            return None
        if not found.types:
            return CURRENT_STATE_COMMANDS.get(found.key, "justenough credential list --live")
        span = f"--since {moment_text(self._period.since)} --until {moment_text(self._period.until)}"
        return f"justenough ledger list {' '.join(f'--type {kind}' for kind in found.types)} {span}"

    def _record_checkpoint(self, fact: EntryFact) -> None:
        self._checkpoint = Checkpoint(fact.id, fact.at)


def worst_status(statuses: Iterable[Status]) -> Status:
    """Return the worst of several."""
    return max(statuses, key=STATUS_ORDER.index, default=Status.OK)
