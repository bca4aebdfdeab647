"""GET /resources/{name}: who has or had access to a resource."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.page_user import ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.services.resources import resource_access

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/resources/{name}")
def show(request: Request, console: TheConsole, visitor: ThePageUser, name: str) -> Response:
    """Show a resource with the access to it that the user may read."""
    visitor.caller.require(*Role)
    stream = live_stream.stream_url(console, topics="credential,revocation")
    found = resource_access(console, visitor.caller, name)
    jobs = console.deps.store.jobs.captions({one.job_id for one in (*found.active, *found.past)})
    return render(request, "resource.html", found=found, jobs=jobs, reads_all=visitor.caller.can_read_all, stream=stream, refresh=30)
