"""What the routes work with: the console's parts, and the caller of a request. Reads no tokens itself; `console.auth.tokens` does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from console.auth.authorization import Caller, Role
from console.http.dependencies import reject_nul
from console.services.console import Console

# Only for OpenAPI: the header itself is read before the body is, by AuthenticatedRoute.
BEARER = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An identity token of audience je-console, signed by Vault")


class AuthenticatedRoute(APIRoute):
    """Knows the caller before it reads a body: a stranger's input is not even parsed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with the caller put into the request's state first."""
        handler = super().get_route_handler()

        async def handle_authenticated(request: Request) -> Response:
            console: Console = request.app.state.console
            identity = await console.token_verifier.verify(request.headers.get("authorization"))
            # In a thread: now and then it looks at files.
            tiers = (await to_thread.run_sync(console.deps.config.current)).tiers
            request.state.caller = Caller(person=identity.person, tiers=tiers, expires=identity.expires)
            reject_nul(request)
            return await handler(request)

        return handle_authenticated


async def _get_caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _require_any_role(request: Request) -> Caller:
    caller: Caller = request.state.caller
    caller.require(*Role)
    return caller


def _require_roles(*roles: Role) -> Callable[[Request], Coroutine[Any, Any, Caller]]:
    async def require_caller(request: Request) -> Caller:
        caller: Caller = request.state.caller
        caller.require(*roles)
        return caller

    return require_caller


Anyone = Annotated[Caller, Depends(_get_caller)]
"""Whoever has a valid token."""


Member = Annotated[Caller, Depends(_require_any_role)]
"""Whoever has some role."""


Launcher = Annotated[Caller, Depends(_require_roles(Role.LAUNCH))]


Approver = Annotated[Caller, Depends(_require_roles(Role.APPROVE))]


Reader = Annotated[Caller, Depends(_require_roles(Role.APPROVE, Role.READ, Role.BREAK_GLASS))]
"""Who reads everything."""


Stopper = Annotated[Caller, Depends(_require_roles(Role.LAUNCH, Role.APPROVE))]
"""Who may take a credential away."""
