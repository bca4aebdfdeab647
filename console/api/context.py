"""What the routes work with: the console's parts, and the caller of a request. Reads no tokens itself; `console.people` does."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any

from anyio import to_thread
from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer

from activities.deps import Deps
from console.api.feed import Feed
from console.api.forms import Forms
from console.api.lists import Owners
from console.api.passes import Passes
from console.api.rights import Caller, Role
from console.deliveries import SigningSecrets
from console.gateway import Gateway
from console.health import Health
from console.identity import IdentityKeys
from console.looks import Looks
from console.outbox import Office
from console.overviews import Overviews
from console.pages.cookies import Cookies
from console.pages.sessions import Sessions
from console.pages.throttle import Throttle
from console.people import People
from console.timetable import Timetable
from justenough.errors import InvalidInput, Problem

# Only for OpenAPI: the header itself is read before the body is, by AuthenticatedRoute.
BEARER = HTTPBearer(auto_error=False, bearerFormat="JWT", description="An identity token of audience je-console, signed by Vault")


@dataclass(frozen=True, slots=True)
class Console:
    """The console's parts, made once at start."""

    deps: Deps
    """Store, configuration, settings, and a Vault that the console may only read people and public keys from, and sign its own orders in."""
    people: People
    signing_secrets: SigningSecrets
    identity_keys: IdentityKeys
    gateway: Gateway
    timetable: Timetable
    health: Health
    looks: Looks
    feed: Feed
    owners: Owners
    overviews: Overviews
    sessions: Sessions
    throttle: Throttle
    cookies: Cookies
    passes: Passes
    forms: Forms
    office: Office


class AuthenticatedRoute(APIRoute):
    """Knows the caller before it reads a body: a stranger's input is not even parsed."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return FastAPI's handler with the caller put into the request's state first."""
        handler = super().get_route_handler()

        async def authenticated(request: Request) -> Response:
            console: Console = request.app.state.console
            identity = await console.people.verified(request.headers.get("authorization"))
            # In a thread: now and then it looks at files.
            tiers = (await to_thread.run_sync(console.deps.config.current)).tiers
            request.state.caller = Caller(person=identity.person, tiers=tiers, expires=identity.expires)
            must_be_text(request)
            return await handler(request)

        return authenticated


def must_be_text(request: Request) -> None:
    """Raise InvalidInput where a NUL is in the address, by path: PostgreSQL holds no such text, so nothing is found by it either."""
    said = [(f"path.{name}", text) for name, text in request.path_params.items()]
    said += [(f"query.{name}", name + text) for name, text in request.query_params.multi_items()]
    wrong = tuple(Problem(where.replace("\0", ""), "must hold no NUL character") for where, text in said if "\0" in text)
    if wrong:
        raise InvalidInput("request", wrong)


async def _console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


async def _anyone(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


async def _member(request: Request) -> Caller:
    caller: Caller = request.state.caller
    caller.require(*Role)
    return caller


def _with(*roles: Role) -> Callable[[Request], Coroutine[Any, Any, Caller]]:
    async def having(request: Request) -> Caller:
        caller: Caller = request.state.caller
        caller.require(*roles)
        return caller

    return having


TheConsole = Annotated[Console, Depends(_console)]
Anyone = Annotated[Caller, Depends(_anyone)]
"""Whoever has a valid token."""
Member = Annotated[Caller, Depends(_member)]
"""Whoever has some role."""
Launcher = Annotated[Caller, Depends(_with(Role.LAUNCH))]
Approver = Annotated[Caller, Depends(_with(Role.APPROVE))]
Reader = Annotated[Caller, Depends(_with(Role.APPROVE, Role.READ, Role.BREAK_GLASS))]
"""Who reads everything."""
Stopper = Annotated[Caller, Depends(_with(Role.LAUNCH, Role.APPROVE))]
"""Who may take a credential away."""
