"""Dependencies of the API routes: the caller of a request, with the roles it needs. `console.auth.tokens` verifies the token."""

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

# Only for OpenAPI: AuthenticatedRoute reads the header before the body is read.
BEARER = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An identity token of audience je-console, signed by Vault")


class AuthenticatedRoute(APIRoute):
    """Authenticates the caller before it reads the body, so that input without a valid token is never parsed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, which finds the caller in the request's state."""
        handler = super().get_route_handler()

        async def handle_authenticated(request: Request) -> Response:
            console: Console = request.app.state.console
            identity = await console.token_verifier.verify(request.headers.get("authorization"))
            # In a thread, because reading the configuration sometimes reads files.
            tiers = (await to_thread.run_sync(console.deps.config.current)).tiers
            request.state.caller = Caller(person=identity.person, tiers=tiers, expires=identity.expires)
            reject_nul(request)
            return await handler(request)

        return handle_authenticated


def _caller_with(*roles: Role) -> Callable[[Request], Coroutine[Any, Any, Caller]]:
    """Build a dependency that returns the caller, who needs one of these roles; with none named, no role is needed."""

    async def require_caller(request: Request) -> Caller:
        caller: Caller = request.state.caller
        if roles:
            caller.require(*roles)
        return caller

    return require_caller


Anyone = Annotated[Caller, Depends(_caller_with())]
"""A person with a valid token."""
Member = Annotated[Caller, Depends(_caller_with(*Role))]
"""A person with at least one role."""
Launcher = Annotated[Caller, Depends(_caller_with(Role.LAUNCH))]
Approver = Annotated[Caller, Depends(_caller_with(Role.APPROVE))]
Reader = Annotated[Caller, Depends(_caller_with(Role.APPROVE, Role.READ, Role.BREAK_GLASS))]
"""A person who may read everything."""
Stopper = Annotated[Caller, Depends(_caller_with(Role.LAUNCH, Role.APPROVE))]
"""A person who may revoke a credential."""
