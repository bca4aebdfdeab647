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
    ledger,
    live,
    login,
    oidc,
    own,
    report,
    static,
    verification,
)

ROUTERS = (
    login.router,
    login.pages,
    oidc.router,
    own.router,
    static.router,
    live.router,
    credentials.router,
    ledger.router,
    verification.router,
    catalog.router,
    explain.router,
    report.router,
    inbox.router,
    batches.router,
    answers.router,
    delegating.router,
)


def include(app: FastAPI) -> None:
    """Add the pages to the console."""
    for router in ROUTERS:
        app.include_router(router)
