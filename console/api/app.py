"""Puts the API together: routes, errors, middleware, OpenAPI. Makes none of its parts; `console.build` does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi

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
    sizing,
    triggers,
    wellknown,
)
from console.api.context import BEARER, Console
from console.api.middleware import BoundedBody, Edge
from console.pages import login, oidc, own
from console.reconciler import reconciling

PREFIX = "/api/v1"


def create_app(console: Console) -> FastAPI:
    """Return the API over a console's parts; while it serves, it also starts what was accepted but never started."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with reconciling(console.deps, console.gateway):
            yield
        await console.feed.close()

    # No pages of FastAPI's: they load scripts from elsewhere.
    app = FastAPI(title="JustEnough", version=version("justenough"), lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.console = console
    api = APIRouter(prefix=PREFIX, dependencies=[Depends(BEARER)], responses=problems.RESPONSES)
    for part in (general, bundles, jobs, requests, claims, reviews, delegations, credentials, ledger, reports, events, sizing):
        api.include_router(part.router)
    app.include_router(api)
    # Without a token: a delivery's signature says who sends it.
    app.include_router(triggers.router, prefix=PREFIX, responses=problems.RESPONSES)
    app.include_router(health.router)
    app.include_router(wellknown.router)
    if console.deps.settings.pages == "on":
        for router in (login.router, login.pages, oidc.router, own.router):
            app.include_router(router)
    problems.install(app)
    app.add_middleware(BoundedBody, unbounded=frozenset({PREFIX + bundles.PATH}))
    app.add_middleware(Edge)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    if not app.openapi_schema:
        schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        definitions = problems.ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
        nested = definitions.pop("$defs", {})
        schema["components"]["schemas"] |= {**nested, "Problem": definitions}
        app.openapi_schema = schema
    return app.openapi_schema
