"""The routers of all pages, the way back from the responses to forms, and the page for an unknown address."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from console.http import problems
from console.pages import (
    credentials,
    dashboard,
    delegations,
    docs,
    ledger,
    live_stream,
    operations,
    records,
    report,
    search,
    selection,
    static,
    wall,
)
from console.pages.catalog import catalog, explain
from console.pages.inbox import batch, decisions, inbox
from console.pages.jobs import detail, job_list, launch
from console.pages.login import login, oidc
from console.pages.routing import PageRoute, problem_page

way_back = APIRouter(route_class=PageRoute, include_in_schema=False)

ROUTERS = (
    login.router,
    login.pages,
    oidc.router,
    operations.router,
    static.router,
    live_stream.router,
    dashboard.router,
    wall.router,
    search.router,
    records.router,
    # Before `/inbox/{name}`, which would take "batch" for a request.
    way_back,
    batch.router,
    inbox.router,
    decisions.router,
    delegations.router,
    selection.router,
    job_list.router,
    launch.router,
    detail.router,
    credentials.router,
    ledger.router,
    catalog.router,
    explain.router,
    report.router,
    docs.router,
)


@way_back.get("/inbox/batch")
@way_back.get("/inbox/{name}/answer")
@way_back.get("/inbox/{name}/review")
@way_back.get("/jobs/{job}/prove")
@way_back.get("/jobs/selected/{action}")
@way_back.get("/credentials/selected/{action}")
def leave_response(request: Request) -> Response:
    """Redirect from the address of a form's response, to which a login leads back, to the page that has the form."""
    page = request.url.path.rpartition("/")[0].removesuffix("/selected")
    return RedirectResponse(f"{page}?{request.url.query}" if request.url.query else page, status_code=303)


async def handle_http_error(request: Request, error: Exception) -> Response:
    """Return an error page if a browser asks for an unknown address, else the API's error."""
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return await problems.handle_http_error(request, error)
    request.state.visitor = None
    return problem_page(request, error)
