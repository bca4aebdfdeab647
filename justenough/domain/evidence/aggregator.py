"""Folds a period's entries, one at a time, into the report. Keeps what is open and what is counted, never the entries. No I/O, no clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from justenough.domain.evidence.approvals import Approvals
from justenough.domain.evidence.credentials import Credentials, Open
from justenough.domain.evidence.current_state import CHECKPOINTED, Checkpoint, LedgerState, Standing, ledger_lines
from justenough.domain.evidence.exceptional_events import Unusual
from justenough.domain.evidence.frameworks import ITEMS, MAPPING
from justenough.domain.evidence.grants import Grants
from justenough.domain.evidence.metric_definitions import LINES, SECTIONS
from justenough.domain.evidence.rejected_attempts import Attempts
from justenough.domain.evidence.report import Evidence, Item, Line, Report, Section, Status
from justenough.domain.evidence.revocations import Revocations
from justenough.domain.evidence.statistics import Fact, Found
from justenough.domain.ledger.hash_chain import moment_text

NOW_LISTED = {"emergency.open": "justenough review list"}
"""What lists what a line about now is about, where that is no credentials."""
WORST = (Status.OK, Status.ATTENTION, Status.VIOLATION)


class Period(NamedTuple):
    """From `since` to just before `until`."""

    since: datetime
    until: datetime


class Fold:
    """Takes entries in the ledger's order; `report` may be asked once they are all in."""

    def __init__(self, period: Period) -> None:
        self._period = period
        self._credentials, self._revocations, self._approvals = Credentials(), Revocations(), Approvals()
        self._grants, self._attempts, self._unusual = Grants(), Attempts(), Unusual()
        self._checkpoint: Checkpoint | None = None
        self._entries = 0
        self._handlers: dict[str, list[Callable[[Fact], None]]] = defaultdict(list)
        counting = (self._credentials, self._revocations, self._approvals, self._grants, self._attempts, self._unusual)
        for handlers in (*(one.handlers for one in counting), {CHECKPOINTED: self._checkpointed}):
            for kind, handle in handlers.items():
                self._handlers[kind].append(handle)

    @property
    def types(self) -> tuple[str, ...]:
        """The types of entries that say something here."""
        return tuple(self._handlers)

    @property
    def unended(self) -> Mapping[str, Open]:
        """Credentials that were issued in the period and have no end in it, by id."""
        return self._credentials.open

    def take(self, job: str, entry: str, kind: str, at: str, data: str) -> None:
        """Fold one entry, as it is stored."""
        self._entries += 1
        handlers = self._handlers.get(kind)
        if handlers:
            fact = Fact(job, entry, at, data)
            for handle in handlers:
                handle(fact)

    def report(self, *, installation: str, now: datetime, standing: Standing, ledger: LedgerState) -> Report:
        """Return the report, with what is so now beside what was in the period."""
        found = {one.key: one for one in self._found(standing, ledger)}
        lines = [self._line(key, found[key]) for key in LINES]
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
            status=worst(line.status for line in lines),
            sections=sections,
        )

    def _found(self, standing: Standing, ledger: LedgerState) -> Iterator[Found]:
        until = self._period.until
        yield from standing.found()
        yield standing.overdue()
        yield standing.reviews()
        yield from self._credentials.found()
        yield from self._revocations.found(until=until)
        yield from self._approvals.found(until=until)
        yield from self._grants.found()
        yield from self._attempts.found()
        yield from self._unusual.found()
        yield from ledger_lines(ledger, read=self._entries, checkpoint=self._checkpoint)

    def _line(self, key: str, found: Found) -> Line:
        told = LINES[key]
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

    def _command(self, found: Found) -> str | None:
        if found.seen.count <= len(found.seen.ids):
            return None
        if not found.types:
            return NOW_LISTED.get(found.key, "justenough credential list --live")
        span = f"--since {moment_text(self._period.since)} --until {moment_text(self._period.until)}"
        return f"justenough ledger list {' '.join(f'--type {kind}' for kind in found.types)} {span}"

    def _checkpointed(self, fact: Fact) -> None:
        self._checkpoint = Checkpoint(fact.id, fact.at)


def worst(statuses: Iterable[Status]) -> Status:
    """Return the worst of several."""
    return max(statuses, key=WORST.index, default=Status.OK)
