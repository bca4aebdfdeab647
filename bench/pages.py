"""`python -m bench.pages`: what the lists, figures and searches of a large store take, as API and pages ask for them. Fill one with bench.seed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

from bench.figures import Figure, p50, p95
from bench.report import table
from justenough.adapters.store import Store
from justenough.domain.jobs.states import CredentialState, JobState, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import JobSummary

LIST, GLANCE = 50, 30
"""Milliseconds: what a list may take, and what stands above every page."""
DEEP = 20
"""Pages that are gone through before one deep in a list is measured."""

Question = tuple[str, float, Callable[[], object]]


def asked(store: Store, now: datetime) -> Iterator[Question]:
    """Yield what is asked, its budget in ms, and how."""
    newest = store.jobs.list(state=JobState.SUCCEEDED, limit=1).items[0]
    yield from _at_a_glance(store, now)
    yield from _of_jobs(store, newest)
    yield from _of_access(store)
    yield from _of_the_ledger(store, newest.id, now)


def _at_a_glance(store: Store, now: datetime) -> Iterator[Question]:
    yield "what stands open now", GLANCE, lambda: store.dashboard.current_counts(now)
    yield "the course of 24 hours in 48 parts", GLANCE, lambda: store.dashboard.period_trend(now - timedelta(hours=24), now, 48)
    yield "figures for /metrics", GLANCE, store.metrics.counts
    yield "what is overdue", GLANCE, store.metrics.overdue


def _of_jobs(store: Store, one: JobSummary) -> Iterator[Question]:
    login, person = "person005", "e-person005"
    frequent, rare = "refund-orders", "audit-users"
    for state in (None, JobState.SUCCEEDED, JobState.RUNNING, JobState.LOST):
        for environment in (None, "test"):
            for requester in (None, login, "trigger:invoice-paid"):
                for name in (None, frequent, rare):
                    chosen = " ".join(word for word in (state, environment, requester, name) if word)
                    yield (
                        f"jobs: {chosen or 'all'}",
                        LIST,
                        lambda s=state, e=environment, r=requester, n=name: store.jobs.list(state=s, environment=e, requester=r, name=n),  # type: ignore[misc]
                    )
    yield "jobs: a launcher's own, lost, of a name", LIST, lambda: store.jobs.list(requester_id=person, state=JobState.LOST, name=frequent)
    cursor = None
    for _ in range(DEEP):
        cursor = store.jobs.list(state=JobState.FAILED, cursor=cursor).next
    yield f"jobs: page {DEEP + 1} of those that failed", LIST, lambda: store.jobs.list(state=JobState.FAILED, cursor=cursor)
    yield "a job whole", LIST, lambda: store.jobs.get(one.id)
    yield "what the beginning of an id names", GLANCE, lambda: store.search.find(one.id[:16])


def _of_access(store: Store) -> Iterator[Question]:
    rare = "service-20-api"
    yield "requests: those that wait", LIST, lambda: store.requests.list(state=RequestState.PENDING)
    yield "requests: a launcher's denied ones", LIST, lambda: store.requests.list(state=RequestState.DENIED, requester_id="e-person005")
    yield "credentials: all", LIST, store.credentials.list
    yield "credentials: live", LIST, lambda: store.credentials.list(live=True)
    yield "credentials: live, of one resource", LIST, lambda: store.credentials.list(live=True, resource="orders-db")
    yield "credentials: of one resource", LIST, lambda: store.credentials.list(resource=rare)
    yield "credentials: admin", LIST, lambda: store.credentials.list(action="admin")
    yield "credentials: expired", LIST, lambda: store.credentials.list(state=CredentialState.EXPIRED)
    yield (
        "credentials: expired, admin, of one resource",
        LIST,
        lambda: store.credentials.list(state=CredentialState.EXPIRED, action="admin", resource="orders-db"),
    )
    yield "reviews that are open", LIST, store.reviews.list


def _of_the_ledger(store: Store, job: str, now: datetime) -> Iterator[Question]:
    middle, half = store.ledger.head().position // 2, now - timedelta(days=180)
    rare, frequent = (EventType.REVIEW_OPENED,), (EventType.JOB_ENDED, EventType.CREDENTIAL_ISSUED)
    yield "ledger backwards: all", LIST, store.ledger.entries_newest_first
    yield "ledger backwards: from the middle", LIST, lambda: store.ledger.entries_newest_first(before=middle)
    yield "ledger backwards: a rare type", LIST, lambda: store.ledger.entries_newest_first(types=rare)
    yield "ledger backwards: two types from the middle", LIST, lambda: store.ledger.entries_newest_first(types=frequent, before=middle)
    yield "ledger backwards: every type by name", LIST, lambda: store.ledger.entries_newest_first(types=EventType)
    yield (
        "ledger backwards: a day half a year ago",
        LIST,
        lambda: store.ledger.entries_newest_first(since=half, until=half + timedelta(days=1)),
    )
    yield "ledger backwards: a rare type, until half a year ago", LIST, lambda: store.ledger.entries_newest_first(types=rare, until=half)
    yield "ledger backwards: a job", LIST, lambda: store.ledger.entries_newest_first(job=job)
    yield "ledger: after the middle", LIST, lambda: store.ledger.entries(after=middle)
    yield "ledger: a day half a year ago", LIST, lambda: store.ledger.entries(since=half, until=half + timedelta(days=1))
    yield "what listeners read: 500 entries", LIST, lambda: store.ledger.tail(middle, limit=500)


def measured(store: Store, kind: str, *, rounds: int, tell: Callable[[str], None]) -> Iterator[Figure]:
    """Yield the figure of each question, after one that nobody measures."""
    for what, budget, ask in asked(store, datetime.now(UTC)):
        took = []
        for _ in range(rounds + 1):
            began = time.perf_counter()
            ask()
            took.append((time.perf_counter() - began) * 1e3)
        first, *rest = took
        tell(what)
        note = f"p50 {p50(rest):.1f} ms, the first {first:.0f} ms"
        yield Figure(f"{kind}: {what}", f"{what}, p95, {kind}", p95(rest), "ms", at_most=budget, note=note)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description="Measure the questions of API and pages on a large store.")
    parser.add_argument("--url", required=True, help="a store that bench.seed has filled")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="how often each is asked (20)")
    parser.add_argument("--misses", action="store_true", help="only those over their budget")
    wanted = parser.parse_args()
    kind = "PostgreSQL" if wanted.url.startswith("postgres") else "SQLite"
    with closing(Store(wanted.url)) as store:
        figures = list(measured(store, kind, rounds=wanted.rounds, tell=lambda text: print(f"bench: {text}", file=sys.stderr, flush=True)))
    print(table([figure for figure in figures if not (wanted.misses and figure.ok)]))
    slowest = max(figures, key=lambda figure: figure.value)
    print(
        f"\n{len(figures)} questions, {sum(not figure.ok for figure in figures)} over their budget; the slowest: {slowest.what}, {slowest.value:.0f} ms"
    )


if __name__ == "__main__":
    main()
