"""GET /resources/{name}, /people/{name}, /agents/{name} and /jobs/by-name/{name}: the record of a resource, a person, an agent, a job name."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.charts import run_bars
from console.pages.jobs.launch import relaunch_url
from console.pages.page_user import PageMember
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.agents import MAX_JOBS, agent_record
from console.services.jobs_by_name import jobs_by_name
from console.services.people import person_record
from console.services.resources import resource_access
from justenough.domain.jobs.states import JobState

MAX_ROWS = 25
"""Jobs of an agent or of a name that its page lists; the list of jobs has all."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/resources/{name}")
def show_resource(request: Request, console: TheConsole, visitor: PageMember, name: str) -> Response:
    """Show who has or had access to a resource, as far as the user may read it."""
    stream = live_stream.stream_url(console, topics="credential,revocation")
    found = resource_access(console, visitor.caller, name)
    return render(
        request,
        "resource.html",
        found=found,
        jobs=console.deps.store.jobs.captions({one.job_id for one in (*found.active, *found.past)}),
        stream=stream,
        refresh=30,
    )


@router.get("/people/{name:path}")
async def show_person(request: Request, console: TheConsole, visitor: PageMember, name: str) -> Response:
    """Show what a person launched, decided and delegated, to themselves and to those who may read everything."""
    found = await person_record(console, visitor.caller, name)
    return await to_thread.run_sync(lambda: render(request, "person.html", found=found))


@router.get("/agents/{name}")
def show_agent(request: Request, console: TheConsole, visitor: PageMember, name: str) -> Response:
    """Show what an agent is, what it did and what it was refused, by its newest jobs that the user may read."""
    found = agent_record(console, visitor.caller, name)
    return render(request, "agent.html", found=found, shown=MAX_ROWS, is_newest=len(found.jobs) == MAX_JOBS)


@router.get("/jobs/by-name/{name}")
def show_job_name(request: Request, console: TheConsole, visitor: PageMember, name: str) -> Response:
    """Show the newest runs of a name that the user may read."""
    found = jobs_by_name(console, visitor.caller, name)
    # The newest run is the last bar, as in every chart over time.
    bars = run_bars([(run.ran_s, run.job.state is JobState.SUCCEEDED) for run in reversed(found.ended_runs)])
    return render(
        request,
        "job_name.html",
        found=found,
        bars=bars,
        shown=MAX_ROWS,
        # Filled with the newest run's order.
        again=relaunch_url(console.deps, found.sizing.newest, found.sizing.spec) if Role.LAUNCH in visitor.caller.roles else "",
    )
