"""Makes the evidence report: reads the ledger's entries of a period and what is so now, and folds them. Blocking, for a thread. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from justenough.adapters.store import Span, Store
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.evidence.aggregator import Fold, Period
from justenough.domain.evidence.credentials import ENDS, Open
from justenough.domain.evidence.current_state import LedgerState, Standing
from justenough.domain.evidence.report import Report
from justenough.domain.ledger.hash_chain import moment_text

MOST = 6_000_000
"""Entries that one report reads; docs/reference/evidence.md says how long that takes."""
VERIFIED_AT_MOST = 2_000_000
"""Entries of a ledger that is verified whole for a report; of a larger one, the report says that it was not."""
ASKED_AT_ONCE = 500


def report(store: Store, period: Period, *, installation: str, now: datetime, verified_at_most: int = VERIFIED_AT_MOST) -> Report:
    """Return the report of a period. Raises InvalidInput where that is none, or holds more entries than are read at once."""
    since, until = period
    if since >= until:
        raise InvalidInput("report", (Problem("query.since", f"must be before until ({moment_text(until)})"),))
    span = store.span(since, until)
    if span is not None and span.width > MOST:
        what = f"the period holds up to {span.width:,} ledger entries, and one report reads at most {MOST:,}: ask for shorter periods"
        raise InvalidInput("report", (Problem("query.since", what),))
    fold = _folded(store, period, span)
    return fold.report(
        installation=installation, now=now, standing=_standing(store, fold, now=now), ledger=_ledger(store, verified_at_most)
    )


def _folded(store: Store, period: Period, span: Span | None) -> Fold:
    fold, first, end = Fold(period), moment_text(period.since), moment_text(period.until)
    if span is not None:
        for _, job, entry, kind, at, data in store.facts(fold.types, span):
            if first <= at < end:
                fold.take(job, entry, kind, at, data)
    return fold


def _standing(store: Store, fold: Fold, *, now: datetime) -> Standing:
    standing, live = Standing(now=now), set[str]()
    for one in store.standing():
        standing.take(one)
        live.add(one.credential)
    for credential in _untold(store, {name: one for name, one in fold.unended.items() if name not in live}):
        standing.take_untold(credential)
    for job, since in store.overdue_jobs():
        standing.take_overdue(job, since)
    for review in store.open_reviews():
        standing.take_review(review)
    return standing


def _untold(store: Store, unended: dict[str, Open]) -> Iterator[Open]:
    """Yield those of the credentials without an end in the period, and not live, that have none later either."""
    names = list(unended)
    for start in range(0, len(names), ASKED_AT_ONCE):
        ends = {f"{unended[name].job}/{kind}/{name}": name for name in names[start : start + ASKED_AT_ONCE] for kind in ENDS}
        ended = {ends[entry] for entry in store.recorded(ends)}
        yield from (unended[name] for name in dict.fromkeys(ends.values()) if name not in ended)


def _ledger(store: Store, verified_at_most: int) -> LedgerState:
    head = store.head()
    verified = store.verify() if head.entries <= verified_at_most else None
    return LedgerState(entries=head.entries, hash=head.hash, verified=verified)
