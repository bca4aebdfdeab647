"""GET /now: the dashboard, alerts first. Everyone with a role sees the counts; names appear only for jobs they may read."""

from __future__ import annotations

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
from justenough.domain.jobs.states import JobState
from justenough.domain.readmodel.failed_systems import group_by_system

HEALTH_TIMEOUT_S = 0.25
"""Seconds that the page waits for the health checks. A slower result appears at the next refresh."""
MAX_ITEMS = 5
"""Pending requests, reviews and own jobs that the page lists."""
SYSTEMS = {"store": "Store", "temporal": "Temporal", "vault": "Vault", "workers": "Workers"}
OPEN_STATES = tuple(state for state in JobState if not state.ended)
ENDED_STATES = tuple(state for state in JobState if state.ended)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/")
async def home() -> Response:
    """Redirect to the dashboard."""
    return RedirectResponse("/now", status_code=303)


@router.get("/now")
async def now(request: Request, console: TheConsole, visitor: ThePageUser) -> Response:
    """Show the dashboard."""
    visitor.caller.require(*Role)
    health = await console.health.report_within(HEALTH_TIMEOUT_S)
    return await to_thread.run_sync(_render_page, request, console, visitor.caller, health)


def _render_page(request: Request, console: Console, caller: Caller, health: HealthReport | None) -> Response:
    # Take the stream position before reading anything, so that no later change is missed.
    stream = live_stream.stream_url(console)
    own_alarm = console.deps.config.alarm
    store, current, trend = console.deps.store, console.dashboard.current_counts(), console.dashboard.course()
    readable, only = InboxFilter(caller.person.id, caller.tier, mine=None, only=caller.requester_filter), caller.requester_filter
    overdue = store.dashboard.overdue_jobs_of(only) if only and current.overdue_jobs else current.overdue
    return render(
        request,
        "now.html",
        current=current,
        overdue=overdue,
        failed_systems=group_by_system(overdue),
        pending=[item.request for item in store.inbox.items(readable, limit=MAX_ITEMS)] if current.open_requests else (),
        reviews=store.reviews.list(limit=MAX_ITEMS).items if caller.can_read_all and current.open_reviews else (),
        own_jobs=() if caller.can_read_all else store.jobs.list(requester_id=only, limit=MAX_ITEMS).items,
        alarm=health.config_alarm(own_alarm) if health else own_alarm,
        # Every state has a count, zeros included, so that the layout never moves.
        open_jobs=[(state, current.jobs.get(state, 0)) for state in OPEN_STATES],
        ended_jobs=[(state, current.ended.get(state, 0)) for state in ENDED_STATES],
        trend=trend,
        alive=charts.line_chart([point.count for point in trend.alive]),
        approvals=charts.histogram(trend.approvals),
        lifetimes=charts.histogram(trend.lifetimes),
        systems=SYSTEMS,
        health=health,
        checks={check.name: check for check in health.checks} if health else {},
        tiers=caller.tiers,
        stream=stream,
        refresh=30,
    )
