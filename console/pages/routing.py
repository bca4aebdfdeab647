"""The route of every page that is not for everybody: it knows the visitor before it reads a form, and sends strangers to the login."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlencode

from fastapi import Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from console.pages.visitors import NotVisiting, visitor_of


class PageRoute(APIRoute):
    """Knows the visitor before it reads anything else."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with the visitor put into the request's state first."""
        handler = super().get_route_handler()

        async def visited(request: Request) -> Response:
            try:
                request.state.visitor = await visitor_of(request)
                return await handler(request)
            except NotVisiting:
                return to_login(request)

        return visited


def to_login(request: Request) -> RedirectResponse:
    """Return the way to the login and, from there, back to the page that was asked for; what was posted is not sent again."""
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "") if request.method == "GET" else "/"
    return RedirectResponse(f"/login?{urlencode({'next': asked})}", status_code=303)
