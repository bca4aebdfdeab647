"""The routers of all pages, and the page for an unknown address."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from console.http import problems
from console.pages import credentials, dashboard, delegations, live_stream, report, static
from console.pages.catalog import catalog, explain
from console.pages.inbox import batch, decisions, inbox
from console.pages.jobs import detail, job_list, launch, stop
from console.pages.ledger import ledger, verify
from console.pages.login import login, my_sessions, oidc
from console.pages.routing import problem_page

ROUTERS = (
    login.router,
    login.pages,
    oidc.router,
    my_sessions.router,
    static.router,
    live_stream.router,
    dashboard.router,
    inbox.router,
    batch.router,
    decisions.router,
    delegations.router,
    job_list.router,
    launch.router,
    detail.router,
    stop.router,
    credentials.router,
    ledger.router,
    verify.router,
    catalog.router,
    explain.router,
    report.router,
)


def show_problems(app: FastAPI) -> None:
    """Answer with an error page if a browser asks for an unknown address."""
    app.add_exception_handler(HTTPException, _handle_http_error)


async def _handle_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return await problems.handle_http_error(request, error)
    request.state.visitor = None
    return problem_page(request, error)
