"""Which pages there are, and how they join the console. Makes none of them."""

from __future__ import annotations

from fastapi import FastAPI

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


def include(app: FastAPI) -> None:
    """Add the pages to the console."""
    for router in ROUTERS:
        app.include_router(router)
