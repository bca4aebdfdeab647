"""Makes the evidence report: reads the ledger's entries of a period and what is so now, and folds them. Blocking, for a thread. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from justenough.adapters.store import LedgerSpan, Store
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.evidence.aggregator import EvidenceAggregator, ReportPeriod
from justenough.domain.evidence.credentials import END_EVENTS, OpenCredential
from justenough.domain.evidence.current_state import CurrentState, LedgerState
from justenough.domain.evidence.report import Report
from justenough.domain.ledger.hash_chain import moment_text

MAX_ENTRIES_PER_REPORT = 6_000_000
"""Entries that one report reads; docs/reference/evidence.md says how long that takes."""
MAX_VERIFIED_ENTRIES = 2_000_000
"""Entries of a ledger that is verified whole for a report; of a larger one, the report says that it was not."""
LOOKUP_BATCH_SIZE = 500


def build_evidence_report(
    store: Store, period: ReportPeriod, *, installation: str, now: datetime, max_verified_entries: int = MAX_VERIFIED_ENTRIES
) -> Report:
    """Return the report of a period. Raises InvalidInput where that is none, or holds more entries than are read at once."""
    since, until = period
    if since >= until:
        raise InvalidInput("report", (Problem("query.since", f"must be before until ({moment_text(until)})"),))
    span = store.ledger.span(since, until)
    if span is not None and span.width > MAX_ENTRIES_PER_REPORT:
        what = f"the period holds up to {span.width:,} ledger entries, and one report reads at most {MAX_ENTRIES_PER_REPORT:,}: ask for shorter periods"
        raise InvalidInput("report", (Problem("query.since", what),))
    fold = _aggregate(store, period, span)
    return fold.report(
        installation=installation,
        now=now,
        current_state=_collect_current_state(store, fold, now=now),
        ledger=_collect_ledger_state(store, max_verified_entries),
    )


def _aggregate(store: Store, period: ReportPeriod, span: LedgerSpan | None) -> EvidenceAggregator:
    fold, first, end = EvidenceAggregator(period), moment_text(period.since), moment_text(period.until)
    if span is not None:
        for _, job, entry, kind, at, data in store.ledger.stored_entries(fold.types, span):
            if first <= at < end:
                fold.add_entry(job, entry, kind, at, data)
    return fold


def _collect_current_state(store: Store, fold: EvidenceAggregator, *, now: datetime) -> CurrentState:
    standing, live = CurrentState(now=now), set[str]()
    for one in store.credentials.live_with_jobs():
        standing.add_live(one)
        live.add(one.credential)
    for credential in _find_unclosed_credentials(store, {name: one for name, one in fold.open_credentials.items() if name not in live}):
        standing.add_unclosed(credential)
    for job, since in store.jobs.overdue():
        standing.add_overdue_job(job, since)
    for review in store.reviews.iterate_open():
        standing.add_open_review(review)
    return standing


def _find_unclosed_credentials(store: Store, unended: dict[str, OpenCredential]) -> Iterator[OpenCredential]:
    """Yield those of the credentials without an end in the period, and not live, that have none later either."""
    names = list(unended)
    for start in range(0, len(names), LOOKUP_BATCH_SIZE):
        ends = {f"{unended[name].job}/{kind}/{name}": name for name in names[start : start + LOOKUP_BATCH_SIZE] for kind in END_EVENTS}
        ended = {ends[entry] for entry in store.ledger.existing_ids(ends)}
        yield from (unended[name] for name in dict.fromkeys(ends.values()) if name not in ended)


def _collect_ledger_state(store: Store, max_verified_entries: int) -> LedgerState:
    head = store.ledger.head()
    verified = store.ledger.verify() if head.entries <= max_verified_entries else None
    return LedgerState(entries=head.entries, hash=head.hash, verified=verified)
