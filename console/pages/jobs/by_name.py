"""GET /jobs/by-name/{name}: the results of all jobs of a name, what they request, who decides, and a link to launch one again."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages.charts import run_bars
from console.pages.jobs.launch import relaunch_url
from console.pages.page_user import PageMember
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.jobs_by_name import jobs_by_name
from justenough.domain.jobs.states import JobState

SHOWN_RUNS = 25
"""Maximum rows of the table; the list of jobs has all."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/jobs/by-name/{name}")
def show(request: Request, console: TheConsole, visitor: PageMember, name: str) -> Response:
    """Show the newest runs of a name that the user may read."""
    found = jobs_by_name(console, visitor.caller, name)
    # The newest run is the last bar, as in every chart over time.
    bars = run_bars([(run.ran_s, run.job.state is JobState.SUCCEEDED) for run in reversed(found.ended_runs)])
    return render(
        request,
        "job_name.html",
        found=found,
        bars=bars,
        shown=SHOWN_RUNS,
        # Filled with the newest run's order.
        again=relaunch_url(console.deps, found.sizing.newest, found.sizing.spec) if Role.LAUNCH in visitor.caller.roles else "",
    )
