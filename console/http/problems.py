"""Errors as RFC 9457 problems: the status and the body of each. Responses contain no internals, input values or tokens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Match

from justenough.domain.core.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    JustEnoughError,
    NotFound,
    NotNow,
    OverQuota,
    PreconditionRequired,
    RetryLater,
    Stale,
    TooLarge,
    Unauthenticated,
    UnsupportedMedia,
)
from justenough.domain.core.errors import Problem as Fault
from justenough.domain.core.untrusted_yaml import to_yaml_path
from justenough.domain.core.validation_messages import describe_error

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MAX_FAULTS = 100
"""Problems of one request that are reported; the others are counted."""
RETRY_AFTER_S = 2
"""Seconds after which a client should retry if a required system did not answer."""

log = structlog.get_logger()

STATUSES: dict[type[JustEnoughError], int] = {
    Unauthenticated: 401,
    Forbidden: 403,
    NotFound: 404,
    Conflict: 409,
    Stale: 412,
    TooLarge: 413,
    UnsupportedMedia: 415,
    InvalidInput: 422,
    PreconditionRequired: 428,
    OverQuota: 429,
    RetryLater: 503,
}

STATUS_HEADERS: dict[int, dict[str, str]] = {
    401: {"WWW-Authenticate": 'Bearer realm="justenough"'},
    429: {"Retry-After": str(RETRY_AFTER_S)},
    503: {"Retry-After": str(RETRY_AFTER_S)},
}
HEADER_TEXT = {"WWW-Authenticate": "How to authenticate: with a bearer token", "Retry-After": "Seconds to wait before retrying"}
STATUS_TEXT = {
    401: "The token is missing or not valid",
    403: "The caller lacks a right; the detail names the groups that have it",
    404: "Unknown, or the caller may not read it",
    408: "The body did not arrive in time",
    409: "Not possible in the current state",
    412: "The request has changed; read it again",
    413: "The body is too large",
    415: "The body has the wrong content type",
    422: "Invalid input; `errors` lists every problem with its path",
    428: "If-Match is missing",
    429: "The caller has used up their share; the detail names it; retry after `Retry-After`",
    500: "An unexpected error; the console's log has the details",
    503: "A required system does not answer, or access could not be revoked now (`errors` lists it); retry after `Retry-After`",
}


class FaultBody(BaseModel):
    """One problem at one path of the input."""

    path: str
    message: str


class ProblemBody(BaseModel):
    """An RFC 9457 problem."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[FaultBody] | None = None


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Build the OpenAPI responses for the problems of a route."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    responses: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        headers = {name: {"schema": {"type": "string"}, "description": HEADER_TEXT[name]} for name in STATUS_HEADERS.get(status, {})}
        responses[status] = {"description": STATUS_TEXT[status], "content": content, **({"headers": headers} if headers else {})}
    return responses


def problem_response(
    request: Request, status: int, detail: str, *, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    phrase = HTTPStatus(status).phrase
    body: dict[str, Any] = {
        "type": f"urn:justenough:problem:{phrase.lower().replace(' ', '-')}",
        "title": phrase,
        "status": status,
        "detail": detail,
        "instance": request.url.path,
    }
    if status == 422 or faults:
        shown = [
            *faults[:MAX_FAULTS],
            *([Fault("", f"and {len(faults) - MAX_FAULTS:,} more problems")] if len(faults) > MAX_FAULTS else ()),
        ]
        body["errors"] = [{"path": fault.path, "message": fault.message} for fault in shown]
    return JSONResponse(body, status_code=status, headers={**STATUS_HEADERS.get(status, {}), **(headers or {})}, media_type=MEDIA_TYPE)


def install_handlers(app: Starlette) -> None:
    """Make an application respond to every error with a problem."""
    app.add_exception_handler(JustEnoughError, _handle_error)
    app.add_exception_handler(RequestValidationError, _handle_error)
    app.add_exception_handler(HTTPException, handle_http_error)


def status_of(error: JustEnoughError) -> int:
    """Return the status of an error's nearest base class that has one; 500 if none has."""
    return next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), 500)


NO_KEY = re.compile(r"\[key\]|(?:str-enum|literal)\[.*\]")
"""The parts of pydantic's locations that are not keys of the input."""
MAY_BE_EMPTY = "literal['']"


def faults_of(error: RequestValidationError) -> tuple[Fault, ...]:
    """Return the problems of a request, each with its path."""
    faults = []
    for item in error.errors():
        if item["loc"][-1] == MAY_BE_EMPTY:
            # This filter may also be empty. Another of these errors says what else it may be.
            continue
        source, *path = item["loc"]
        location = [] if item["type"] == "json_invalid" else path if source == "body" else [source, *path]
        faults.append(Fault(to_yaml_path(part for part in location if not NO_KEY.fullmatch(str(part))), describe_error(item)))
    return tuple(faults)


def unexpected_error_response(request: Request, error: Exception) -> JSONResponse:
    """Log the type and place of an unexpected error, and build a response without details."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "?"
    # The error's text may contain input of the caller; its type and place do not.
    log.error("request failed", method=request.method, path=request.url.path, error=type(error).__name__, place=place)
    return problem_response(request, 500, "unexpected error; the console's log has the details")


async def _handle_error(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, RequestValidationError):
        faults = faults_of(error)
        detail = "; ".join(map(str, faults[:MAX_FAULTS]))
        return problem_response(request, 422, detail or "the request is not valid", faults=faults)
    assert isinstance(error, JustEnoughError)
    status = status_of(error)
    if status == 500:
        return unexpected_error_response(request, error)
    if isinstance(error, InvalidInput):
        count = len(error.problems)
        summary = str(error) if count <= 3 else f"{error.what}: {count} problems, the first: {error.problems[0]}"
        return problem_response(request, status, summary, faults=error.problems)
    faults = error.problems if isinstance(error, NotNow) else ()
    headers = error.headers if isinstance(error, NotNow | OverQuota) else None
    return problem_response(request, status, error.for_callers, faults=faults, headers=headers)


async def handle_http_error(request: Request, error: Exception) -> JSONResponse:
    """Build the response for a request that no route accepts."""
    assert isinstance(error, HTTPException)
    # A body that is not JSON is treated like other invalid input.
    status = 422 if error.status_code == 400 else error.status_code
    faults = [Fault("", str(error.detail))] if status == 422 else []
    detail = f"there is no {request.url.path}" if status == 404 else str(error.detail)
    headers = error.headers
    if status == 405:
        # Name every method that the path accepts; each route knows only its own methods.
        scopes = ({**request.scope, "method": method} for method in METHODS)
        allowed = (scope["method"] for scope in scopes if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes))
        headers = {"Allow": ", ".join(allowed)}
    return problem_response(request, status, detail, faults=faults, headers=headers)
