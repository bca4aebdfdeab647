"""Which pages there are, and how they join the console. Makes none of them."""

from __future__ import annotations

from fastapi import FastAPI

from console.pages import live, login, own, static

ROUTERS = (login.router, login.pages, own.router, static.router, live.router)


def include(app: FastAPI) -> None:
    """Add the pages to the console."""
    for router in ROUTERS:
        app.include_router(router)
