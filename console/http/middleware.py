"""What every request passes: a log line, headers, a bound on its body, and an answer without details where our own code fails. ASGI, no routes."""

from __future__ import annotations

import logging
import time

import anyio
import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from console.http.problems import problem_response, unexpected_error_response

CACHE_HEADER = (b"cache-control", b"no-store")
"""Unless a route says otherwise of what is everybody's."""
SECURITY_HEADERS = {b"x-content-type-options": b"nosniff", b"x-frame-options": b"DENY", b"referrer-policy": b"same-origin"}
CSP_HEADER = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""Unless it is a page, which says what of ours it uses."""
MAX_BODY_BYTES = 1024 * 1024
"""Bytes of any JSON body; a bundle has its own bound."""
HEALTH_PATHS = frozenset({"/livez", "/readyz", "/metrics"})
"""Asked every second by whoever watches the console; in the log only at level debug."""
BODY_TIMEOUT_S = 30.0
"""Seconds in which a body must have come."""

log = structlog.get_logger()


class EdgeMiddleware:
    """Outermost: adds headers, logs without query and body, answers what nobody foresaw."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": _add_headers(message.get("headers", []))}
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception as error:
            # Whatever it is, the caller gets a problem and the log its place.
            if status and _is_client_gone(error):
                return  # In the middle of a stream, which is how streams end.
            if status:
                raise  # The answer has begun; only the connection can tell now.
            await unexpected_error_response(Request(scope), error)(scope, receive, send_with_headers)
        finally:
            took = round((time.perf_counter() - began) * 1000, 1)
            level = logging.DEBUG if scope["path"] in HEALTH_PATHS and status < 400 else logging.INFO
            log.log(level, "request", method=scope["method"], path=scope["path"], status=status, ms=took)


class BodyLimitMiddleware:
    """Reads a body whole, up to its bound, before the route sees it. `unbounded` paths read theirs themselves."""

    def __init__(self, app: ASGIApp, *, unbounded: frozenset[str]) -> None:
        self._app = app
        self._unbounded = unbounded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in self._unbounded or scope["method"] in {"GET", "HEAD", "OPTIONS"}:
            await self._app(scope, receive, send)
            return
        try:
            with anyio.fail_after(BODY_TIMEOUT_S):
                body = await _read_body(receive)
        except TimeoutError:
            await problem_response(Request(scope), 408, "the body did not come in time")(scope, receive, send)
            return
        if body is None:
            await problem_response(Request(scope), 413, f"the body is larger than {MAX_BODY_BYTES:,} bytes")(scope, receive, send)
            return
        await self._app(scope, _replay_receive(body, receive), send)


async def _read_body(receive: Receive) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return b"".join(parts)
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > MAX_BODY_BYTES:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replay_receive(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replay() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def _is_client_gone(error: BaseException) -> bool:
    """Whether all that went wrong is that nobody takes what a stream still has to say."""
    if isinstance(error, BaseExceptionGroup):
        return all(map(_is_client_gone, error.exceptions))
    return isinstance(error, anyio.BrokenResourceError | anyio.ClosedResourceError)


def _add_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    kept = [(name, value) for name, value in headers if name.lower() not in SECURITY_HEADERS]
    given = {name.lower() for name, _ in kept}
    return [*kept, *SECURITY_HEADERS.items(), *(header for header in (CACHE_HEADER, CSP_HEADER) if header[0] not in given)]
