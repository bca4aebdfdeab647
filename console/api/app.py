"""Puts the API together: routes, errors, middleware, OpenAPI. Makes none of its parts; `console.build` does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute

from console import problems
from console.api import (
    bundles,
    claims,
    credentials,
    delegations,
    events,
    general,
    health,
    jobs,
    ledger,
    reports,
    requests,
    reviews,
    schedules,
    sizing,
    triggers,
    webhooks,
    wellknown,
)
from console.api.context import BEARER, Console
from console.api.document import document
from console.api.firing import fire
from console.api.middleware import BoundedBody, Edge
from console.outbox import delivering
from console.pages.app import include
from console.reconciler import meanwhile, reconciling

PREFIX = "/api/v1"
ANYWHERE = problems.answers(401, 403, 422, 500, 503)
"""What any route of the API may answer; more follows from its address and its body."""


def create_app(console: Console) -> FastAPI:
    """Return the API over a console's parts; while it serves, it also starts what was accepted but never started and what is
    due, and tells others of events.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            reconciling(console.deps, console.gateway),
            meanwhile(console.timetable.keep()),
            meanwhile(fire(console)),
            delivering(console.office),
        ):
            yield
        await console.looks.close()
        await console.feed.close()

    app = FastAPI(
        title="JustEnough",
        version=version("justenough"),
        lifespan=lifespan,
        # No pages of FastAPI's: they load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # One address for one thing; a redirect would also tell a client to go where its own Host header says.
        redirect_slashes=False,
        generate_unique_id_function=_name,
    )
    app.state.console = console
    api = APIRouter(prefix=PREFIX, dependencies=[Depends(BEARER)], responses=ANYWHERE)
    for part in (
        general,
        bundles,
        jobs,
        requests,
        claims,
        reviews,
        delegations,
        credentials,
        ledger,
        reports,
        events,
        sizing,
        schedules,
        webhooks,
    ):
        api.include_router(part.router)
    app.include_router(api)
    # Without a token: a delivery's signature says who sends it.
    app.include_router(triggers.router, prefix=PREFIX, responses=problems.answers(401, 422, 500, 503))
    app.include_router(health.router)
    app.include_router(wellknown.router)
    problems.install(app)
    if console.deps.settings.pages == "on":
        include(app)
    app.add_middleware(BoundedBody, unbounded=frozenset({PREFIX + bundles.PATH}))
    app.add_middleware(Edge)
    app.openapi = lambda: _once(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _once(app: FastAPI) -> dict[str, Any]:
    app.openapi_schema = app.openapi_schema or document(app)
    return app.openapi_schema


def _name(route: APIRoute) -> str:
    """Return a route's operationId: what a generated client calls it."""
    return route.name
