"""Builds the report from a period's entries, one at a time. Keeps counts and open items, never the entries. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import NamedTuple

from justenough.domain.evidence.approvals import ApprovalMetrics
from justenough.domain.evidence.credentials import CredentialMetrics, OpenCredential, RevocationMetrics
from justenough.domain.evidence.current_state import CurrentState, LedgerState, ledger_results
from justenough.domain.evidence.grants import GrantMetrics
from justenough.domain.evidence.metric_definitions import ITEMS, METRICS, SECTIONS
from justenough.domain.evidence.report import Evidence, Item, Line, Report, Section, Status
from justenough.domain.evidence.single_events import SingleEventMetrics
from justenough.domain.evidence.statistics import EntryFact, MetricResult
from justenough.domain.ledger.hash_chain import moment_text

CURRENT_STATE_COMMANDS = {"emergency.open": "justenough review list"}
"""The command that lists the items that a metric of the current state counts. The default lists active credentials."""


class ReportPeriod(NamedTuple):
    """From `since` to just before `until`."""

    since: datetime
    until: datetime


class EvidenceAggregator:
    """Takes entries in the ledger's order; call `report` after the last one."""

    def __init__(self, period: ReportPeriod) -> None:
        self._period = period
        self._credentials, until = CredentialMetrics(), period.until
        self._metrics = (self._credentials, RevocationMetrics(until), ApprovalMetrics(until), GrantMetrics(), SingleEventMetrics())
        self._entries = 0
        self._counters = defaultdict[str, list[Callable[[EntryFact], None]]](list)
        for metrics in self._metrics:
            for kind in metrics.types:
                self._counters[kind].append(metrics.add)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of entries that the report counts."""
        return tuple(self._counters)

    @property
    def open_credentials(self) -> Mapping[str, OpenCredential]:
        """Credentials that were issued in the period and have no end in it, by id."""
        return self._credentials.open

    def add_entry(self, job: str, entry: str, kind: str, at: str, data: str) -> None:
        """Count an entry, as it is stored."""
        self._entries += 1
        counters = self._counters.get(kind)
        if counters is not None:
            fact = EntryFact(job, entry, kind, at, data)
            for count in counters:
                count(fact)

    def report(self, *, installation: str, now: datetime, current_state: CurrentState, ledger: LedgerState) -> Report:
        """Return the report of the period, together with the current state."""
        results = {result.key: result for source in (current_state, *self._metrics) for result in source.metric_results()}
        results |= {result.key: result for result in ledger_results(ledger, read=self._entries)}
        lines = {key: self._to_line(results[key]) for key in METRICS}
        sections = tuple(
            Section(key=key, title=title, lines=tuple(lines[name] for name in METRICS if name.startswith(f"{key}.")))
            for key, title in SECTIONS.items()
        )
        return Report(
            installation=installation,
            since=self._period.since,
            until=self._period.until,
            generated_at=now,
            entries=self._entries,
            status=worst_status(line.status for line in lines.values()),
            sections=sections,
        )

    def _to_line(self, result: MetricResult) -> Line:
        seen, command = result.seen, None
        if seen.count > len(seen.first):
            command = CURRENT_STATE_COMMANDS.get(result.key, "justenough credential list --live")
            if result.types:
                span = f"--since {moment_text(self._period.since)} --until {moment_text(self._period.until)}"
                command = f"justenough ledger list {' '.join(f'--type {kind}' for kind in result.types)} {span}"
        metric = METRICS[result.key]
        return Line(
            key=result.key,
            title=metric.title,
            figures=result.figures,
            table=result.table,
            definition=metric.definition,
            status=result.status,
            rule=metric.rule,
            shows=metric.shows,
            items=tuple(Item(id=item, framework=ITEMS[item][0], name=ITEMS[item][1]) for item in metric.items),
            evidence=Evidence(count=seen.count, ids=tuple(seen.first), command=command),
        )


def worst_status(statuses: Iterable[Status]) -> Status:
    """Return the worst status; ok if there are none."""
    return max(statuses, key=list(Status).index, default=Status.OK)
