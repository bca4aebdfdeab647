"""`python -m bench.pages`: the time of the lists, figures and searches that API and pages query in a large store. Fill one with bench.seed."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

from bench.figures import Figure, p50, p95, seconds_of, table
from bench.scratch import tell
from justenough.adapters.store import Store
from justenough.domain.jobs.states import CredentialState, JobState, RequestState
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import JobSummary

LIST, GLANCE = 50, 30
"""Budgets in milliseconds: of a list, and of the figures that are on every page."""
DEEP = 20
"""How many pages come before the deep page that is measured."""

Query = tuple[str, float, Callable[[], object]]


def queries(store: Store, now: datetime) -> Iterator[Query]:
    """Yield the name of each query, its budget in ms, and the query."""
    newest = store.jobs.list(state=JobState.SUCCEEDED, limit=1).items[0]
    yield "open work now", GLANCE, lambda: store.dashboard.current_counts(now)
    yield "the trend of 24 hours in 48 parts", GLANCE, lambda: store.dashboard.period_trend(now - timedelta(hours=24), now, 48)
    yield "figures for /metrics", GLANCE, store.metrics.counts
    yield "overdue revocations", GLANCE, store.metrics.overdue
    yield from _job_queries(store, newest)
    yield from _access_queries(store)
    yield from _ledger_queries(store, newest.id, now)


def _job_queries(store: Store, newest: JobSummary) -> Iterator[Query]:
    login, person = "person005", "e-person005"
    frequent, rare = "refund-orders", "audit-users"
    for state in (None, JobState.SUCCEEDED, JobState.RUNNING, JobState.LOST):
        for environment in (None, "test"):
            for requester in (None, login, "trigger:invoice-paid"):
                for name in (None, frequent, rare):
                    filters = " ".join(value for value in (state, environment, requester, name) if value)
                    yield (
                        f"jobs: {filters or 'all'}",
                        LIST,
                        lambda s=state, e=environment, r=requester, n=name: store.jobs.list(state=s, environment=e, requester=r, name=n),  # type: ignore[misc]
                    )
    yield "jobs: a launcher's lost jobs of one name", LIST, lambda: store.jobs.list(requester_id=person, state=JobState.LOST, name=frequent)
    cursor = None
    for _ in range(DEEP):
        cursor = store.jobs.list(state=JobState.FAILED, cursor=cursor).next
    yield f"jobs: page {DEEP + 1} of the failed jobs", LIST, lambda: store.jobs.list(state=JobState.FAILED, cursor=cursor)
    yield "one job in full", LIST, lambda: store.jobs.get(newest.id)
    yield "search for the beginning of an id", GLANCE, lambda: store.search.find(newest.id[:16], installation="dev")


def _access_queries(store: Store) -> Iterator[Query]:
    rare = "service-20-api"
    yield "requests: pending", LIST, lambda: store.requests.list(state=RequestState.PENDING)
    yield "requests: a launcher's denied requests", LIST, lambda: store.requests.list(state=RequestState.DENIED, requester_id="e-person005")
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
    yield "open reviews", LIST, store.reviews.list


def _ledger_queries(store: Store, job: str, now: datetime) -> Iterator[Query]:
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
    yield "a listener's read: 500 entries", LIST, lambda: store.ledger.tail(middle, limit=500)


def measure(store: Store, kind: str, *, rounds: int) -> Iterator[Figure]:
    """Yield the figure of each query. Its first run does not count."""
    for what, budget, query in queries(store, datetime.now(UTC)):
        first, *rest = [seconds_of(query) * 1e3 for _ in range(rounds + 1)]
        tell(what)
        note = f"p50 {p50(rest):.1f} ms, the first {first:.0f} ms"
        yield Figure(f"{kind}: {what}", f"{what}, p95, {kind}", p95(rest), "ms", at_most=budget, note=note)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description="Measure the queries of API and pages on a large store.")
    parser.add_argument("--url", required=True, help="a store that bench.seed has filled")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="runs per query (20)")
    parser.add_argument("--misses", action="store_true", help="only the queries over their budget")
    options = parser.parse_args()
    kind = "PostgreSQL" if options.url.startswith("postgres") else "SQLite"
    with closing(Store(options.url)) as store:
        figures = list(measure(store, kind, rounds=options.rounds))
    print(table([figure for figure in figures if not (options.misses and figure.ok)]))
    slowest, misses = max(figures, key=lambda figure: figure.value), sum(not figure.ok for figure in figures)
    print(f"\n{len(figures)} queries, {misses} over their budget; the slowest: {slowest.what}, {slowest.value:.0f} ms")


if __name__ == "__main__":
    main()
