"""ASGI middleware for every request: a log line, headers, a limit on the body, and a response without details for unexpected errors."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid

import anyio
import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.http.problems import problem_response, unexpected_error_response

CACHE_HEADER = (b"cache-control", b"no-store")
"""Default; a route with public content sets its own."""
SECURITY_HEADERS = {b"x-content-type-options": b"nosniff", b"x-frame-options": b"DENY", b"referrer-policy": b"same-origin"}
CSP_HEADER = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""Default; pages set their own."""
MAX_BODY_BYTES = 1024 * 1024
"""Largest JSON body; bundles have their own limit."""
HEALTH_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Logged at level debug, because monitoring polls them every second."""
BODY_TIMEOUT_S = 30.0
REQUEST_ID_HEADER = b"x-request-id"
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
STOPPING_TEXT = "the console is stopping and did not complete the request; send it again"
CLIENT_GONE = (anyio.BrokenResourceError, anyio.ClosedResourceError)

log = structlog.get_logger()


class EdgeMiddleware:
    """The outermost middleware: adds headers, logs requests without query and body, responds to unexpected errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, request_id = time.perf_counter(), 0, request_id_of(scope)

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [(name, value) for name, value in message.get("headers", []) if name.lower() not in SECURITY_HEADERS]
                names = {name.lower() for name, _ in headers}
                defaults = [header for header in (CACHE_HEADER, CSP_HEADER) if header[0] not in names]
                message = {**message, "headers": [*headers, *SECURITY_HEADERS.items(), *defaults, (REQUEST_ID_HEADER, request_id)]}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except ClientDisconnect:
            return  # The client went away before its body was complete, and nobody reads a response.
        except asyncio.CancelledError:
            # Only the server cancels requests: when it stops, it cancels those that have not ended after a while. They may have had their effect.
            if status:
                raise
            await problem_response(Request(scope), 503, STOPPING_TEXT)(scope, receive, send_with_headers)
        except Exception as error:
            if status and (isinstance(error, CLIENT_GONE) or (isinstance(error, ExceptionGroup) and error.split(CLIENT_GONE)[1] is None)):
                return  # The client of a stream has disconnected, and nothing else has failed.
            if status:
                raise  # The response has begun: closing the connection is the only way to report the error.
            await unexpected_error_response(Request(scope), error)(scope, receive, send_with_headers)
        finally:
            took = round((time.perf_counter() - began) * 1000, 1)
            level = logging.DEBUG if scope["path"] in HEALTH_PATHS and status < 400 else logging.INFO
            log.log(level, "request", method=scope["method"], path=scope["path"], status=status, ms=took, request_id=request_id.decode())


def request_id_of(scope: Scope) -> bytes:
    """Return the id that the client or a proxy gave this request, or a new one."""
    given = dict(scope.get("headers", ())).get(REQUEST_ID_HEADER, b"")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex.encode()


class BodyLimitMiddleware:
    """Reads the whole body, up to a limit, before the route runs. Routes at `unbounded` paths read their bodies themselves."""

    def __init__(self, app: ASGIApp, *, unbounded: frozenset[str]) -> None:
        self._app = app
        self._unbounded = unbounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._unbounded or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        body, more = bytearray(), True
        try:
            with anyio.fail_after(BODY_TIMEOUT_S):
                while more and len(body) <= MAX_BODY_BYTES:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return  # What has arrived is not the client's request: a reason or a whole form may be missing.
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            await problem_response(Request(scope), 408, f"the body did not arrive within {BODY_TIMEOUT_S:.0f} s")(scope, receive, send)
            return
        if len(body) > MAX_BODY_BYTES:
            await problem_response(Request(scope), 413, f"the body is larger than {MAX_BODY_BYTES:,} bytes")(scope, receive, send)
            return
        pending: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)
