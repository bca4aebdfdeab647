"""Puts the API together: routes, errors, middleware, OpenAPI. Makes none of its parts; `console.startup` does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from console.api.dependencies import BEARER
from console.api.openapi import openapi_document
from console.api.routes import (
    bundles,
    catalog,
    claims,
    credentials,
    delegations,
    events,
    health,
    jobs,
    ledger,
    reports,
    requests,
    reviews,
    schedules,
    sweep,
    triggers,
    usage_analysis,
    webhooks,
    wellknown,
    whoami,
)
from console.http import problems
from console.http.middleware import BodyLimitMiddleware, EdgeMiddleware
from console.outbox import run_dispatcher
from console.pages.routers import ROUTERS, show_problems
from console.schedule_runner import run_occasions
from console.services.console import Console
from console.services.reconciler import run_in_background, run_reconciler

TITLE = "JustEnough"
API_PREFIX = "/api/v1"
COMMON_PROBLEMS = problems.problem_responses(401, 403, 422, 500, 503)
"""What any route of the API may answer; more follows from its address and its body."""


def create_app(console: Console) -> FastAPI:
    """Return the API over a console's parts; while it serves, it also starts what was accepted but never started and what is
    due, and tells others of events.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            run_reconciler(console.deps, console.gateway),
            run_in_background(console.schedule_sync.run()),
            run_in_background(run_occasions(console)),
            run_dispatcher(console.dispatcher),
        ):
            yield
        await console.background_reads.close()
        await console.feed.close()

    pages = console.deps.settings.pages == "on"
    app = FastAPI(
        title=TITLE,
        version=version("justenough"),
        routes=list(build_routes(pages=pages)),
        lifespan=lifespan,
        # No pages of FastAPI's: they load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        # One address for one thing; a redirect would also tell a client to go where its own Host header says.
        redirect_slashes=False,
    )
    app.state.console = console
    problems.install_handlers(app)
    if pages:
        show_problems(app)
    app.add_middleware(BodyLimitMiddleware, unbounded=frozenset({API_PREFIX + bundles.BUNDLES_PATH}))
    app.add_middleware(EdgeMiddleware)
    app.openapi = partial(build_document, pages=pages)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


@cache
def build_routes(*, pages: bool) -> tuple[BaseRoute, ...]:
    """Return every route, built once per process. No route holds a console: each reads it from the app of its request."""
    api = APIRouter(dependencies=[Depends(BEARER)], responses=COMMON_PROBLEMS)
    for part in (
        whoami,
        catalog,
        sweep,
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
        usage_analysis,
        schedules,
        webhooks,
    ):
        api.include_router(part.router)
    root = APIRouter(generate_unique_id_function=_operation_id)
    # With the prefix given here: FastAPI would otherwise build each route once more, only to look for empty paths.
    root.include_router(api, prefix=API_PREFIX)
    # Without a token: a delivery's signature says who sends it.
    root.include_router(triggers.router, prefix=API_PREFIX, responses=problems.problem_responses(401, 422, 500, 503))
    for router in (health.router, wellknown.router, *(ROUTERS if pages else ())):
        root.include_router(router)
    return tuple(root.routes)


@cache
def build_document(*, pages: bool) -> dict[str, Any]:
    """Return the OpenAPI document of the routes, built once per process."""
    return openapi_document(title=TITLE, version=version("justenough"), routes=build_routes(pages=pages))


def _operation_id(route: APIRoute) -> str:
    """Return a route's operationId: what a generated client calls it."""
    return route.name
