"""Which pages there are, and how a browser sees an address that does not exist. Makes no page."""

from __future__ import annotations

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from console import problems
from console.pages import (
    answers,
    batches,
    catalog,
    credentials,
    delegating,
    explain,
    inbox,
    job,
    jobs,
    launch,
    ledger,
    live,
    login,
    now,
    oidc,
    own,
    report,
    static,
    stopping,
    verification,
)
from console.pages.routing import problem_page

ROUTERS = (
    login.router,
    login.pages,
    oidc.router,
    own.router,
    static.router,
    live.router,
    now.router,
    inbox.router,
    batches.router,
    answers.router,
    delegating.router,
    jobs.router,
    launch.router,
    job.router,
    stopping.router,
    credentials.router,
    ledger.router,
    verification.router,
    catalog.router,
    explain.router,
    report.router,
)


def show_problems(app: FastAPI) -> None:
    """Answer with a page if a browser asks for an address that does not exist."""
    app.add_exception_handler(HTTPException, _http)


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return await problems.http_problem(request, error)
    request.state.visitor = None
    return problem_page(request, error)
