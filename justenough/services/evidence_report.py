"""Builds the evidence report from the ledger's entries of a period and the current state. Blocking: call it from threads. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from justenough.adapters.store import Store
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.evidence.aggregator import EvidenceAggregator, ReportPeriod
from justenough.domain.evidence.credentials import OpenCredential
from justenough.domain.evidence.current_state import CurrentState, LedgerState
from justenough.domain.evidence.report import Report
from justenough.domain.ledger.hash_chain import LedgerReport, moment_text

MAX_ENTRIES_PER_REPORT = 6_000_000
"""Maximum number of entries that one report reads. docs/reference/evidence.md says how long that takes."""
MAX_VERIFIED_ENTRIES = 2_000_000
"""Maximum number of entries of a ledger that a report verifies. If the ledger is larger, the report says that it was not verified."""
LOOKUP_BATCH_SIZE = 500


def build_evidence_report(
    store: Store,
    period: ReportPeriod,
    *,
    installation: str,
    now: datetime,
    verify: Callable[[], LedgerReport] | None = None,
    max_verified_entries: int = MAX_VERIFIED_ENTRIES,
) -> Report:
    """Return the report of a period. `verify`: how the ledger is verified; None for its chains alone, without its checkpoints.

    Raises InvalidInput if the period is empty, has more entries than one report reads, or has one that cannot be
    counted.
    """
    since, until = period
    if since >= until:
        raise InvalidInput("report", (Problem("query.since", f"must be before until ({moment_text(until)})"),))
    span = store.ledger.span(since, until)
    if span is not None and span.width > MAX_ENTRIES_PER_REPORT:
        limit = f"one report reads at most {MAX_ENTRIES_PER_REPORT:,}: request shorter periods"
        raise InvalidInput("report", (Problem("query.since", f"the period has up to {span.width:,} ledger entries; {limit}"),))
    aggregator, first, end = EvidenceAggregator(period), moment_text(since), moment_text(until)
    if span is not None:
        for _, job, entry, kind, at, data in store.ledger.stored_entries(aggregator.types, span):
            if first <= at < end:
                try:
                    aggregator.add_entry(job, entry, kind, at, data)
                except (LookupError, ValueError, TypeError, AttributeError) as error:
                    why = f"the ledger's entry {entry} cannot be counted: somebody may have edited it; run justenough ledger verify"
                    raise InvalidInput("report", (Problem("", why),)) from error
    current_state = _collect_current_state(store, aggregator.open_credentials, now=now)
    head = store.ledger.head()
    verified = (verify or store.ledger.verify)() if head.entries <= max_verified_entries else None
    ledger = LedgerState(entries=head.entries, hash=head.hash, verified=verified)
    return aggregator.report(installation=installation, now=now, current_state=current_state, ledger=ledger)


def _collect_current_state(store: Store, open_credentials: Mapping[str, OpenCredential], *, now: datetime) -> CurrentState:
    """Return the current state. `open_credentials`: credentials without an end in the period, by id."""
    state, live = CurrentState(now=now), set[str]()
    for credential in store.credentials.live_with_jobs():
        state.add_live(credential)
        live.add(credential.credential)
    # Credentials that are not live, and whose end is not recorded after the period either.
    ids = [credential for credential in open_credentials if credential not in live]
    for start in range(0, len(ids), LOOKUP_BATCH_SIZE):
        batch = ids[start : start + LOOKUP_BATCH_SIZE]
        ends = {f"{open_credentials[name].job}/{kind}/{name}": name for name in batch for kind in open_credentials[name].end_events}
        ended = {ends[entry] for entry in store.ledger.existing_ids(ends)}
        for name in batch:
            if name not in ended:
                state.add_unclosed(open_credentials[name])
    for job, since in store.jobs.overdue():
        state.add_overdue_job(job, since)
    for review in store.reviews.iterate_open():
        state.add_open_review(review)
    return state
