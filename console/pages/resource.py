"""GET /resources/{name}: who has or had access to a resource."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Request, Response

from console.auth.authorization import Role
from console.http.dependencies import TheConsole
from console.pages import live_stream
from console.pages.page_user import ThePageUser
from console.pages.rendering import render
from console.pages.routing import PageRoute
from console.presentation.job_status import tier_name
from console.services.deciders import deciders_from
from console.services.resources import resource_access

router = APIRouter(route_class=PageRoute, include_in_schema=False)


@router.get("/resources/{name}")
def show(request: Request, console: TheConsole, visitor: ThePageUser, name: str) -> Response:
    """Show a resource with the access to it that the user may read."""
    visitor.caller.require(*Role)
    stream = live_stream.stream_url(console, topics="credential,revocation")
    found = resource_access(console, visitor.caller, name)
    jobs = console.deps.store.jobs.captions({one.job_id for one in (*found.active, *found.past)})
    tiers = visitor.caller.tiers
    return render(
        request,
        "resource.html",
        found=found,
        jobs=jobs,
        reads_all=visitor.caller.can_read_all,
        tier_name=lambda number: tier_name(number, tiers),
        deciders=partial(deciders_from, console.deps, tiers),
        stream=stream,
        refresh=30,
    )
