"""The routers of all pages, and the page for an unknown address."""

from __future__ import annotations

from fastapi import Request, Response
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
    preferences,
    records,
    report,
    search,
    selection,
    static,
    wall,
)
from console.pages.catalog import catalog, explain
from console.pages.inbox import batch, decisions, inbox
from console.pages.jobs import by_name, detail, job_list, launch, stop
from console.pages.login import login, oidc
from console.pages.routing import problem_page

ROUTERS = (
    login.router,
    login.pages,
    oidc.router,
    preferences.router,
    operations.router,
    static.router,
    live_stream.router,
    dashboard.router,
    wall.router,
    search.router,
    records.router,
    # Before `/inbox/{name}`, which would take "batch" for a request.
    batch.router,
    inbox.router,
    decisions.router,
    delegations.router,
    selection.router,
    job_list.router,
    launch.router,
    by_name.router,
    detail.router,
    stop.router,
    credentials.router,
    ledger.router,
    catalog.router,
    explain.router,
    report.router,
    docs.router,
)


async def handle_http_error(request: Request, error: Exception) -> Response:
    """Return an error page if a browser asks for an unknown address, else the API's error."""
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return await problems.handle_http_error(request, error)
    request.state.visitor = None
    return problem_page(request, error)
