"""Which pages there are, and how they join the console. Makes none of them."""

from __future__ import annotations

from fastapi import FastAPI

from console.pages import job, jobs, launch, live, login, now, own, static, stopping

ROUTERS = (
    login.router,
    login.pages,
    own.router,
    static.router,
    live.router,
    now.router,
    jobs.router,
    launch.router,
    job.router,
    stopping.router,
)


def include(app: FastAPI) -> None:
    """Add the pages to the console."""
    for router in ROUTERS:
        app.include_router(router)
