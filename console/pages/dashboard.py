"""GET /now: how everything stands, the worst of it first. Counts are for everyone who has a role; names only of what they may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from anyio import to_thread
from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from console.auth.authorization import Caller, Role
from console.http.dependencies import TheConsole
from console.pages import charts, live_stream
from console.pages.page_user import TheVisitor
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.console import Console
from console.services.health import Looked
from justenough.adapters.store.inbox_queries import WaitingFilter
from justenough.domain.jobs.states import JobState, RevocationState
from justenough.domain.readmodel.dashboard import Course, OverdueJob, StandingNow
from justenough.domain.readmodel.views import JobSummary, RequestView, ReviewView

WAITS = 0.25
"""Seconds that the page waits for a look at the systems; a look that takes longer is there at the next one."""
FEW = 5
"""Of what waits and of one's own jobs, as many are named."""
MOST_OVERDUE = 20
SYSTEMS = {"store": "Store", "temporal": "Temporal", "vault": "Vault", "workers": "Workers"}
OPEN = tuple(state for state in JobState if not state.ended)
ENDED = tuple(state for state in JobState if state.ended)

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Told:
    """What the page shows of the store."""

    standing: StandingNow
    course: Course
    overdue: tuple[OverdueJob, ...]
    """Those that the caller may read."""
    waiting: tuple[RequestView, ...]
    """Those whose clocks end first, of what the caller may read."""
    reviews: tuple[ReviewView, ...]
    own: tuple[JobSummary, ...]
    """The newest jobs of somebody who may read no others."""
    alarm: str | None
    stream: str


@router.get("/")
async def home() -> Response:
    """Lead to the first page."""
    return RedirectResponse("/now", status_code=303)


@router.get("/now")
async def now(request: Request, console: TheConsole, visitor: TheVisitor) -> Response:
    """Show how everything stands."""
    visitor.caller.require(*Role)
    told = await to_thread.run_sync(_told, console, visitor.caller)
    looked = await console.health.glimpsed(WAITS)
    return await to_thread.run_sync(lambda: _page(request, visitor.caller, told, looked))


def _told(console: Console, caller: Caller) -> Told:
    # Before anything is read: the page hears of all that comes after it.
    stream = live_stream.stream(console)
    store, standing = console.deps.store, console.overviews.standing()
    everyones = WaitingFilter(caller.person.id, caller.tier, mine=None, only=caller.only)
    return Told(
        standing=standing,
        course=console.overviews.course(),
        overdue=_overdue(console, caller, standing),
        waiting=tuple(one.request for one in store.waiting(everyones, limit=FEW)) if standing.open_requests else (),
        reviews=store.reviews(limit=FEW).items if caller.reads_all and standing.open_reviews else (),
        own=() if caller.reads_all else store.jobs(requester_id=caller.only, limit=FEW).items,
        alarm=console.deps.config.alarm,
        stream=stream,
    )


def _overdue(console: Console, caller: Caller, standing: StandingNow) -> tuple[OverdueJob, ...]:
    if caller.reads_all or not standing.overdue_jobs:
        return standing.overdue
    theirs = console.deps.store.jobs(requester_id=caller.only, revocation=RevocationState.OVERDUE, limit=MOST_OVERDUE)
    return tuple(_late(job) for job in theirs.items)


def _late(job: JobSummary) -> OverdueJob:
    since = job.revocation.since or job.ended_at or job.created_at
    return OverdueJob(id=job.id, name=job.name, state=job.state, since=since, failures=job.revocation.failures)


def _page(request: Request, caller: Caller, told: Told, looked: Looked | None) -> Response:
    standing, course = told.standing, told.course
    return render(
        request,
        "now.html",
        told=told,
        standing=standing,
        open_jobs=_each(OPEN, standing.jobs),
        ended_jobs=_each(ENDED, standing.ended),
        course=course,
        alive=charts.curve([point.count for point in course.alive]),
        approvals=charts.columns(course.approvals),
        lifetimes=charts.columns(course.lifetimes),
        systems=SYSTEMS,
        looked=looked,
        checks={check.name: check for check in looked.checks} if looked else {},
        tiers=caller.tiers,
        stream=told.stream,
        refresh=30,
    )


def _each(states: Iterable[JobState], counts: Mapping[JobState, int]) -> tuple[tuple[JobState, int], ...]:
    """Return every state with its number, none left out: a page that is read every day must not move."""
    return tuple((state, counts.get(state, 0)) for state in states)
