"""Dependencies of the API routes: the caller of a request, with the roles it needs. `console.auth.tokens` verifies the token.

A caller without the role is refused before the body is parsed. A body that would take long to validate is refused as well: parsing and
validating run on the event loop.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from console.auth.authorization import READING_ROLES, STOPPING_ROLES, Caller, Role
from console.http.dependencies import reject_nul
from console.services.console import Console
from justenough.domain.core.errors import TooLarge

KEY = re.compile(rb'"\s*:')
"""Matches the end of a JSON object's key. Some texts match too, so a count is at least the number of keys."""
MAX_BODY_KEYS = 5_000
"""Maximum number of keys in a body. Each unknown key is a separate error: 100,000 of them in 1 MB take most of a second."""
# Only for OpenAPI: AuthenticatedRoute reads the header before the body is read.
BEARER = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An identity token of audience je-console, signed by Vault")


class AuthenticatedRoute(APIRoute):
    """Authenticates the caller, checks their roles, waits for their turn, and checks the body's size before it parses the body."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler, which finds the caller in the request's state."""
        handler = super().get_route_handler()
        needs = [dependency.call for dependency in self.dependant.dependencies if isinstance(dependency.call, CallerWithRole)]

        async def handle_authenticated(request: Request) -> Response:
            console: Console = request.app.state.console
            stops = any(need.reduces_access for need in needs)
            allow_last_known = stops or request.method == "GET"
            caller = await console.token_verifier.verify(request.headers.get("authorization"), allow_last_known=allow_last_known)
            request.state.caller = caller
            reject_nul(request)
            for need in needs:
                await need(request)
            async with console.quotas.take_turn(caller.person.id, stops=stops):
                return await handle_in_turn(request)

        async def handle_in_turn(request: Request) -> Response:
            if self.body_field is not None and (keys := len(KEY.findall(await request.body()))) > MAX_BODY_KEYS:
                raise TooLarge(f"the body has {keys:,} keys; at most {MAX_BODY_KEYS:,} are read")
            return await handler(request)

        return handle_authenticated


class CallerWithRole:
    """A dependency that returns the caller if they have one of these roles. If no role is named, none is needed.

    `reduces_access`: for calls that can only reduce access. Like calls that only read, they are accepted with the caller's last known groups if
    Vault does not answer.
    """

    def __init__(self, *roles: Role, reduces_access: bool = False) -> None:
        self._roles = roles
        self.reduces_access = reduces_access

    async def __call__(self, request: Request) -> Caller:
        """Return the caller. Raises Forbidden."""
        caller: Caller = request.state.caller
        if self._roles:
            caller.require(*self._roles)
        return caller


Anyone = Annotated[Caller, Depends(CallerWithRole())]
"""A person with a valid token."""
Member = Annotated[Caller, Depends(CallerWithRole(*Role))]
"""A person with at least one role."""
Launcher = Annotated[Caller, Depends(CallerWithRole(Role.LAUNCH))]
Approver = Annotated[Caller, Depends(CallerWithRole(Role.APPROVE))]
Reader = Annotated[Caller, Depends(CallerWithRole(*READING_ROLES))]
"""A person who may read everything."""
Stopper = Annotated[Caller, Depends(CallerWithRole(Role.LAUNCH, *STOPPING_ROLES, reduces_access=True))]
"""A person who may stop jobs and revoke credentials: launchers those of their own jobs, other people those of any job."""
