"""GET /agents/{name}: what an agent is, what it did, and what it was refused."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages.page_user import ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.agents import MAX_JOBS, agent_record

SHOWN_ROWS = 25

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/agents/{name}")
def show(request: Request, console: TheConsole, visitor: ThePageUser, name: str) -> Response:
    """Show an agent by its newest jobs that the user may read."""
    visitor.caller.require(*Role)
    found = agent_record(console, visitor.caller, name)
    return render(request, "agent.html", found=found, shown=SHOWN_ROWS, is_newest=len(found.jobs) == MAX_JOBS)
