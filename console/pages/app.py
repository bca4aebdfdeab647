"""Which pages there are, and how they join the console. Makes none of them."""

from __future__ import annotations

from fastapi import FastAPI

from console.pages import answers, batches, delegating, inbox, live, login, own, static

ROUTERS = (
    login.router,
    login.pages,
    own.router,
    static.router,
    live.router,
    inbox.router,
    batches.router,
    answers.router,
    delegating.router,
)


def include(app: FastAPI) -> None:
    """Add the pages to the console."""
    for router in ROUTERS:
        app.include_router(router)
