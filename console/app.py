"""Builds the web application: routes, errors, middleware, OpenAPI. `console.services.console` builds the console that it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache, partial
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import BaseRoute
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from console.api.codec_server import build_codec_server
from console.api.dependencies import BEARER
from console.api.openapi import openapi_document
from console.api.routes import (
    bundles,
    credentials,
    delegations,
    events,
    general,
    health,
    jobs,
    ledger,
    requests,
    schedules,
    triggers,
    usage_analysis,
    webhooks,
    wellknown,
)
from console.concurrency.loops import run_in_background
from console.concurrency.quotas import run_pruning
from console.http import problems
from console.http.middleware import BodyLimitMiddleware, EdgeMiddleware
from console.pages.routers import ROUTERS, handle_http_error
from console.services.checkpoints import run_checkpoints
from console.services.console import Console
from console.services.job_starter import run_occasions, run_reconciler
from console.services.search import run_indexing

API_PREFIX = "/api/v1"
ROUTES = (
    general,
    bundles,
    jobs,
    requests,
    delegations,
    credentials,
    ledger,
    events,
    usage_analysis,
    schedules,
    webhooks,
)
"""The routes of the API that need a token, in the order of the OpenAPI document."""
MIN_COMPRESSED_BYTES = 1024
"""Shorter answers are sent uncompressed."""
COMPRESSION_LEVEL = 5
COMMON_PROBLEMS = problems.problem_responses(401, 403, 422, 429, 500, 503)
"""The problems of every API route; `openapi.py` adds those that depend on its path and body."""


def create_app(console: Console) -> FastAPI:
    """Return the application that serves a console. While it serves, it also starts pending jobs, runs schedules and delivers events."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with (
            run_in_background(run_reconciler(console.deps, console.gateway)),
            run_in_background(run_checkpoints(console.deps)),
            run_in_background(run_pruning(console.deps)),
            run_in_background(run_indexing(console.deps)),
            run_in_background(console.schedule_sync.run()),
            run_in_background(run_occasions(console)),
            run_in_background(console.dispatcher.run()),
        ):
            yield
        await console.dispatcher.close()
        await console.background_reads.close()
        await console.feed.close()

    pages = console.deps.settings.pages == "on"
    app = FastAPI(
        title="JustEnough",
        version=version("justenough"),
        routes=list(build_routes(pages=pages)),
        lifespan=lifespan,
        # FastAPI's documentation pages load scripts from another host.
        docs_url=None,
        redoc_url=None,
        # A redirect would send the client to whatever host its own Host header names.
        redirect_slashes=False,
    )
    app.state.console = console
    problems.install_handlers(app)
    if pages:
        app.add_exception_handler(HTTPException, handle_http_error)
    app.add_middleware(BodyLimitMiddleware, unbounded=frozenset({API_PREFIX + bundles.BUNDLES_PATH}))
    app.add_middleware(GZipMiddleware, minimum_size=MIN_COMPRESSED_BYTES, compresslevel=COMPRESSION_LEVEL)
    app.add_middleware(EdgeMiddleware)
    if proxies := console.deps.settings.console_proxies:
        app.add_middleware(ProxyHeadersMiddleware, trusted_hosts=list(proxies))
    app.mount("/codec", build_codec_server(console))
    app.openapi = partial(build_document, pages=pages)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return app


@cache
def build_routes(*, pages: bool) -> tuple[BaseRoute, ...]:
    """Return every route, built once per process. Routes hold no console; each reads it from the app of its request."""
    api = APIRouter(dependencies=[Depends(BEARER)], responses=COMMON_PROBLEMS)
    for routes in ROUTES:
        api.include_router(routes.router)
    root = APIRouter(generate_unique_id_function=lambda route: route.name)
    # With the prefix given here, FastAPI does not build each route a second time to check for empty paths.
    root.include_router(api, prefix=API_PREFIX)
    # No token: the signature of a delivery identifies its sender.
    root.include_router(triggers.router, prefix=API_PREFIX, responses=problems.problem_responses(401, 422, 429, 500, 503))
    for router in (health.router, wellknown.router, *(ROUTERS if pages else ())):
        root.include_router(router)
    return tuple(root.routes)


@cache
def build_document(*, pages: bool) -> dict[str, Any]:
    return openapi_document(build_routes(pages=pages))
