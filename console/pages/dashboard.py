"""GET /now: the dashboard, alerts first. Everyone with a role sees the counts; names appear only for jobs they may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.auth.authorization import Caller, Role
from console.http.dependencies import TheConsole
from console.pages import charts, live_stream
from console.pages.page_user import ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from console.services.health import HealthReport
from justenough.adapters.store.inbox_queries import InboxFilter
from justenough.domain.jobs.states import JobState, RevocationState
from justenough.domain.readmodel.dashboard import CurrentCounts, OverdueJob, PeriodTrend
from justenough.domain.readmodel.views import JobSummary, RequestView, ReviewView

HEALTH_TIMEOUT_S = 0.25
"""Seconds that the page waits for the health checks. A slower result appears at the next refresh."""
MAX_ITEMS = 5
"""Pending requests, reviews and own jobs that the page lists."""
MAX_OVERDUE = 20
SYSTEMS = {"store": "Store", "temporal": "Temporal", "vault": "Vault", "workers": "Workers"}
OPEN_STATES = tuple(state for state in JobState if not state.ended)
ENDED_STATES = tuple(state for state in JobState if state.ended)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class DashboardData:
    """What the page shows from the store."""

    standing: CurrentCounts
    course: PeriodTrend
    overdue: tuple[OverdueJob, ...]
    """Overdue jobs that the caller may read."""
    waiting: tuple[RequestView, ...]
    """Pending requests that the caller may read, earliest deadline first."""
    reviews: tuple[ReviewView, ...]
    own: tuple[JobSummary, ...]
    """The newest jobs of a caller who may read only their own."""
    alarm: str | None
    stream: str


@router.get("/")
async def home() -> Response:
    """Redirect to the dashboard."""
    return RedirectResponse("/now", status_code=303)


@router.get("/now")
async def now(request: Request, console: TheConsole, visitor: ThePageUser) -> Response:
    """Show the dashboard."""
    visitor.caller.require(*Role)
    data = await to_thread.run_sync(_read_dashboard, console, visitor.caller)
    health = await console.health.report_within(HEALTH_TIMEOUT_S)
    return await to_thread.run_sync(lambda: _render_page(request, visitor.caller, data, health))


def _read_dashboard(console: Console, caller: Caller) -> DashboardData:
    # Take the stream position before reading anything, so that no later change is missed.
    stream = live_stream.stream_url(console)
    store, standing = console.deps.store, console.dashboard.current_counts()
    everyones = InboxFilter(caller.person.id, caller.tier, mine=None, only=caller.requester_filter)
    return DashboardData(
        standing=standing,
        course=console.dashboard.course(),
        overdue=_visible_overdue(console, caller, standing),
        waiting=tuple(one.request for one in store.inbox.items(everyones, limit=MAX_ITEMS)) if standing.open_requests else (),
        reviews=store.reviews.list(limit=MAX_ITEMS).items if caller.can_read_all and standing.open_reviews else (),
        own=() if caller.can_read_all else store.jobs.list(requester_id=caller.requester_filter, limit=MAX_ITEMS).items,
        alarm=console.deps.config.alarm,
        stream=stream,
    )


def _visible_overdue(console: Console, caller: Caller, standing: CurrentCounts) -> tuple[OverdueJob, ...]:
    if caller.can_read_all or not standing.overdue_jobs:
        return standing.overdue
    theirs = console.deps.store.jobs.list(requester_id=caller.requester_filter, revocation=RevocationState.OVERDUE, limit=MAX_OVERDUE)
    return tuple(_to_overdue_job(job) for job in theirs.items)


def _to_overdue_job(job: JobSummary) -> OverdueJob:
    since = job.revocation.since or job.ended_at or job.created_at
    return OverdueJob(id=job.id, name=job.name, state=job.state, since=since, failures=job.revocation.failures)


def _render_page(request: Request, caller: Caller, data: DashboardData, health: HealthReport | None) -> Response:
    standing, course = data.standing, data.course
    return render(
        request,
        "now.html",
        data=data,
        standing=standing,
        open_jobs=_state_counts(OPEN_STATES, standing.jobs),
        ended_jobs=_state_counts(ENDED_STATES, standing.ended),
        course=course,
        alive=charts.line_chart([point.count for point in course.alive]),
        approvals=charts.histogram(course.approvals),
        lifetimes=charts.histogram(course.lifetimes),
        systems=SYSTEMS,
        health=health,
        checks={check.name: check for check in health.checks} if health else {},
        tiers=caller.tiers,
        stream=data.stream,
        refresh=30,
    )


def _state_counts(states: Iterable[JobState], counts: Mapping[JobState, int]) -> tuple[tuple[JobState, int], ...]:
    """Return every state with its count, zeros included, so that the layout never moves."""
    return tuple((state, counts.get(state, 0)) for state in states)
