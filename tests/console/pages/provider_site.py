"""The identity provider's own site, another origin than the console. Its page has one link. It forwards Vault's calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import escape

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from tests.support.plain_http import NO_TLS

PASSED_ON = ("authorization", "content-type")


@dataclass
class Front:
    """The provider's address for browsers and Vault, with a host name of another site."""

    vault: httpx.AsyncClient
    token: str = field(default="", repr=False)
    """Of whoever is logged in there."""
    address: str = ""

    async def page(self, request: Request) -> Response:
        """Ask the logged-in person to allow the login; the link is the redirect that would follow."""
        asked = dict(request.query_params)
        path = request.url.path.replace("/ui/vault/", "/v1/")
        said = (await self.vault.get(path, params=asked, headers={"X-Vault-Token": self.token})).raise_for_status().json()
        back = str(httpx.URL(asked["redirect_uri"], params={"code": said["code"], "state": said["state"]}))
        return HTMLResponse(f'<!doctype html><title>Provider</title><a href="{escape(back)}">Allow</a>')

    async def pass_on(self, request: Request) -> Response:
        """Forward Vault's calls of its provider."""
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        url = httpx.URL(request.url.path, query=request.url.query.encode())
        answer = await self.vault.request(request.method, url, content=await request.body(), headers=headers)
        return Response(answer.content, answer.status_code, media_type=answer.headers.get("content-type"))


@asynccontextmanager
async def serve_front(vault: str) -> AsyncIterator[Front]:
    """Serve it for one `async with` block."""
    async with httpx.AsyncClient(base_url=vault, timeout=60, trust_env=False, verify=NO_TLS) as client:
        front = Front(client)
        routes = [Route("/ui/{rest:path}", front.page), Route("/v1/{rest:path}", front.pass_on, methods=["GET", "POST"])]
        server = uvicorn.Server(
            uvicorn.Config(Starlette(routes=routes), port=0, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        )
        task = asyncio.create_task(server.serve())
        while not server.started:
            assert not task.done(), task
            await asyncio.sleep(0.01)
        front.address = f"http://localhost:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield front
        finally:
            server.should_exit = True
            await task
