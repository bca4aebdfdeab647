"""GET /now: the dashboard, what needs attention first. Everyone with a role sees the counts; names appear only for jobs they may read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse

from console.auth.authorization import Caller
from console.http.dependencies import TheConsole
from console.pages import charts, live_stream
from console.pages.page_user import PageMember, TheForm
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from console.services.dashboard import RESULT_BARS, acknowledge, visible_items
from console.services.health import HealthReport
from justenough.adapters.store.inbox_queries import InboxFilter
from justenough.domain.jobs.states import JobState
from justenough.domain.readmodel.dashboard import MAX_ENDLESS_COUNT, CurrentCounts, JobFilter, JobResults
from justenough.domain.readmodel.failed_systems import group_by_system

HEALTH_TIMEOUT_S = 0.25
"""Seconds that the page waits for the health checks. A slower result appears at the next refresh."""
MAX_ITEMS = 5
"""Pending requests, reviews and own jobs that the page lists."""
SYSTEMS = {"store": "Store", "temporal": "Temporal", "vault": "Vault", "workers": "Workers"}
OPEN_STATES = tuple(state for state in JobState if not state.ended)
ENDED_STATES = tuple(state for state in JobState if state.ended)
ATTENTION_PAGES = {
    "webhook": "/operations/deliveries",
    "schedule": "/operations/schedules",
    "worker": "/operations/workers",
}
"""The pages of items that are not about a job."""
FilterValue = Annotated[str, Query(max_length=200)]

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class HeadlineFigures:
    counts: CurrentCounts
    running: int
    """Jobs that have not ended."""
    ended: int
    """Jobs that ended in the last 24 hours, without those that people stopped."""
    succeeded: int
    success_share: float | None
    """Percentage of these jobs that succeeded; None if none ended."""
    share_before: float | None
    """The same percentage for the 24 hours before."""


def headline_figures(counts: CurrentCounts, before: Sequence[JobResults]) -> HeadlineFigures:
    """Return the numbers at the top. `before`: the results of the day before the last 24 hours."""
    succeeded = counts.ended.get(JobState.SUCCEEDED, 0)
    ended = sum(count for state, count in counts.ended.items() if not state.is_stopped)
    ended_before = sum(part.succeeded + part.failed for part in before)
    return HeadlineFigures(
        counts=counts,
        running=sum(counts.jobs.values()),
        ended=ended,
        succeeded=succeeded,
        success_share=percent_of(succeeded, ended),
        share_before=percent_of(sum(part.succeeded for part in before), ended_before),
    )


def percent_of(part: int, whole: int) -> float | None:
    """Return a share in per cent, rounded down to tenths so that 100 means all; None if `whole` is 0."""
    return 1000 * part // whole / 10 if whole else None


def split_results(results: Sequence[JobResults]) -> tuple[Sequence[JobResults], Sequence[JobResults]]:
    """Return the results of the day before and those of the last 24 hours."""
    return results[:-RESULT_BARS], results[-RESULT_BARS:]


@router.get("/")
async def home() -> Response:
    return RedirectResponse("/now", status_code=303)


@router.get("/now")
async def now(
    request: Request,
    console: TheConsole,
    visitor: PageMember,
    environment: FilterValue = "",
    agent: FilterValue = "",
    team: FilterValue = "",
) -> Response:
    only = JobFilter(environment=environment, agent=agent, team=team)
    health = await console.health.report_within(HEALTH_TIMEOUT_S)
    return await to_thread.run_sync(_render_page, request, console, visitor.caller, only, health)


@router.post("/now/acknowledge")
def acknowledge_item(console: TheConsole, visitor: PageMember, form: TheForm) -> Response:
    """Record that the visitor takes care of an item, and return to the dashboard with the same filter."""
    key, note = (str(form.get(name, "")).strip() for name in ("item", "note"))
    chosen = {name: str(form.get(name, "")) for name in ("environment", "agent", "team")}
    acknowledge(console.deps, console.dashboard, visitor.caller, key, note, only=JobFilter(**chosen))
    query = urlencode({name: value for name, value in chosen.items() if value})
    return RedirectResponse(f"/now?{query}" if query else "/now", status_code=303)


def _render_page(request: Request, console: Console, caller: Caller, only: JobFilter, health: HealthReport | None) -> Response:
    # Take the stream position before reading anything, so that no later change is missed.
    stream = live_stream.stream_url(console)
    own_alarm = console.deps.config.alarm
    figures, store = console.dashboard, console.deps.store
    current, trend, (before, results) = figures.current_counts(only), figures.trend(), split_results(figures.results(only))
    readable, mine = InboxFilter(caller.person.id, caller.tier, mine=None, only=caller.requester_filter), caller.requester_filter
    overdue = store.dashboard.overdue_jobs_of(mine) if mine and current.overdue_jobs else current.overdue
    items = visible_items(caller, figures, only)
    return render(
        request,
        "now.html",
        is_new=not (current.jobs or current.ended or store.jobs.list(limit=1).items),
        attention_pages=ATTENTION_PAGES,
        current=current,
        max_endless=MAX_ENDLESS_COUNT,
        figures=headline_figures(current, before),
        overdue=overdue,
        failed_systems=group_by_system(overdue),
        overdue_items={item.subject: item for item in items if item.kind == "overdue"},
        attention=[item for item in items if item.kind != "overdue" and item.acknowledged is None],
        taken=[item for item in items if item.kind != "overdue" and item.acknowledged],
        may_take={item.key for item in items if caller.can_stop_jobs_of(item.requester_id)},
        only=only,
        filters=figures.filter_values() if caller.can_read_all else None,
        pending=[item.request for item in store.inbox.items(readable, limit=MAX_ITEMS)] if current.open_requests else (),
        reviews=store.reviews.list(limit=MAX_ITEMS).items if caller.can_read_all and current.open_reviews else (),
        own_jobs=() if caller.can_read_all else store.jobs.list(requester_id=mine, limit=MAX_ITEMS).items,
        alarm=health.config_alarm(own_alarm) if health else own_alarm,
        # Every state has a count, zeros included, so that the layout never moves.
        open_jobs=[(state, current.jobs.get(state, 0)) for state in OPEN_STATES],
        ended_jobs=[(state, current.ended.get(state, 0)) for state in ENDED_STATES],
        results=charts.result_chart(results, before),
        trend=trend,
        alive=charts.line_chart([point.count for point in trend.alive]),
        approvals=charts.histogram(trend.approvals),
        lifetimes=charts.histogram(trend.lifetimes),
        systems=SYSTEMS,
        health=health,
        checks={check.name: check for check in health.checks} if health else {},
        stream=stream,
        refresh=30,
    )
