"""A codec server (https://docs.temporal.io/codec-server): decrypts payloads for people who read histories in Temporal's UI or its CLI.

Callers authenticate with a token, as for the API. Temporal's UI has no token, so the cookie of a page session is accepted from it. This is
a separate application, because only this one answers scripts of another origin.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from anyio import to_thread
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from console.auth.authorization import READING_ROLES, Caller
from console.http.problems import install_handlers
from console.services.console import Console
from justenough.adapters.payload_codec import Recoding, recode_json
from justenough.domain.core.errors import Unauthenticated


def build_codec_server(console: Console) -> Starlette:
    """Return the application with the routes `/decode` and `/encode`, both POST."""
    ui = console.deps.settings.temporal_ui_url
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(ui)) if ui else None
    cors = Middleware(
        CORSMiddleware,
        allow_origins=[origin] if origin else [],
        allow_methods=["POST"],
        allow_headers=["authorization", "content-type", "x-namespace"],
        allow_credentials=True,
    )

    async def recode(request: Request, change: Recoding) -> Response:
        caller = await _caller_of(request, console, origin)
        # A payload may be of any job.
        caller.require(*READING_ROLES)
        async with console.quotas.take_turn(caller.person.id, stops=False):
            return Response(await recode_json(await request.body(), change), media_type="application/json")

    async def decode(request: Request) -> Response:
        return await recode(request, console.codec.decode)

    async def encode(request: Request) -> Response:
        return await recode(request, console.codec.encode)

    app = Starlette(routes=[Route("/decode", decode, methods=["POST"]), Route("/encode", encode, methods=["POST"])], middleware=[cors])
    install_handlers(app)
    return app


async def _caller_of(request: Request, console: Console, origin: str | None) -> Caller:
    """Return the caller of a token, or of the cookie if the request comes from Temporal's UI. Raises Unauthenticated, NoSession, RetryLater."""
    header, cookie = request.headers.get("authorization"), request.cookies.get(console.cookies.session)
    if cookie and origin and request.headers.get("origin") == origin:
        # The UI asks by itself, too. That does not keep a session alive.
        session = await console.sessions.session_of(cookie, by_person=False, allow_last_known=True)
        tiers = (await to_thread.run_sync(console.deps.config.current)).tiers
        return Caller(person=session.person, tiers=tiers, expires=session.expires.timestamp())
    if header is None:
        raise Unauthenticated(
            "an identity token is required (temporal --codec-auth \"Bearer …\"); or log in to the console's pages and open Temporal's UI at the "
            "address of JUSTENOUGH_TEMPORAL_UI_URL"
        )
    return await console.token_verifier.verify(header, allow_last_known=True)
