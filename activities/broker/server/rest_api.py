"""The broker's HTTP API as in docs/reference/broker.md, with problem details (RFC 9457). Makes no decisions.

    POST /v1/access {resource, action, reason, ttl?, wait?}  → 200 {credential_id, request_id, action, expires_at, data}; 202 {request_id, state, tier, respond_by}
    POST /v1/access {…, through: tools}                      → 200 {request_id, action, ttl, tools}; 202 as above
    GET  /v1/requests/{id}?wait=…                            → 200 {request_id, state, tier, respond_by}
    POST /v1/access/{credential_id}/release                  → 200 {credential_id, state}
    GET  /v1/identity?audience=…                             → 200 {token, expires_at}
    GET  /v1/catalog                                         → 200 {items: [{resource, action, outcome, tier, how, …}], tools: […], withheld: […]}
    /openai/v1/…                                             → the model gateway (llm/openai_api.py)
    /mcp                                                     → the tool gateway (tools/mcp_server.py)

400 malformed, 401 no token, 403 denied {outcome, policies, request_id}, 404 unknown, 409 not issued, 410 the job's access is closed, 413, 422 with `errors`, 429, 500, 503.
"""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Literal

import structlog
from pydantic import Field, StringConstraints
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from activities.broker.broker import Broker, denial_details
from activities.broker.errors import BodyTooLarge, MalformedBody, MissingBrokerToken, TooManyCalls
from activities.broker.llm.gateway import ModelGateway
from activities.broker.llm.openai_api import model_problem_response, model_routes, read_request_body
from activities.issuing.results import AccessClosed, IssueRefused, NotPermitted, PendingRequest, ToolAccess
from justenough.domain.core.base_model import Model
from justenough.domain.core.errors import InvalidInput, JustEnoughError, NotFound, OverQuota, Problem, RetryLater
from justenough.domain.core.secret import Secret
from justenough.domain.core.units import Duration
from justenough.domain.core.untrusted_yaml import validate_model
from justenough.domain.jobs.spec import MAX_TTL_S, Access, Name, Sentence
from justenough.domain.jobs.states import Action
from justenough.domain.jobs.tool_bounds import tools_to_json

MAX_BODY_BYTES = 64 * 1024
MAX_KEYS = 32
"""Maximum number of keys in a body. Each unknown key is a separate error, and thousands of errors take long to report."""
BYTES_PER_CALL = 16 * 1024
"""Number of bytes in a body that count as one further call under the rate limit."""
MALFORMED_COST = 20.0
"""A malformed body counts as this many calls."""
REFUSAL_DELAY_S = 1.0
"""Seconds before a caller is refused because of its rate or its token: a flood then gets at most one refusal per connection at a time."""
MAX_WAIT_S = 60.0
"""Maximum seconds that one call waits for people; a client calls again to wait longer."""
PROBLEMS: dict[type[Exception], tuple[int, str]] = {
    MalformedBody: (400, "Bad Request"),
    MissingBrokerToken: (401, "Unauthorized"),
    NotPermitted: (403, "Denied"),
    NotFound: (404, "Not Found"),
    IssueRefused: (409, "Not Issued"),
    AccessClosed: (410, "Gone"),
    BodyTooLarge: (413, "Content Too Large"),
    InvalidInput: (422, "Unprocessable Content"),
    OverQuota: (429, "Too Many Requests"),
    RetryLater: (503, "Service Unavailable"),
    Exception: (500, "Internal Server Error"),
}
"""Status and title by error; the first entry that matches counts."""
log = structlog.get_logger()

Endpoint = Callable[[Request], Awaitable[Response]]
Discover = Callable[[], Awaitable[Mapping[str, list[dict[str, Any]]]]]


class AccessBody(Model):
    resource: Name
    action: Action
    reason: Sentence
    ttl: Annotated[Duration, Field(le=MAX_TTL_S)] | None = None
    """Seconds. Default: the ttl of the same access in the order, else five minutes, never more than the catalog allows."""
    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = 0.0
    """Seconds to wait for people."""
    through: Literal["tools"] | None = None
    """`tools`: return no credential, but the tools that the order names for this access, within their bounds."""


class WaitQuery(Model):
    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = 0.0


class IdentityQuery(Model):
    audience: Annotated[str, StringConstraints(max_length=256)]


def build_app(broker: Broker, token: Secret | None, *, tools: ASGIApp, discover: Discover, models: ModelGateway | None = None) -> ASGIApp:
    """Return the application of one job. `token`: the bearer token of calls over TCP; on a Unix socket the kernel identifies the caller.

    `tools` answers at /mcp; `discover` returns the catalog; `models`: the model gateway, if the spec has a model.
    """

    async def access(request: Request) -> Response:
        body = await read_access_body(request)
        ttl = body.ttl or broker.default_ttl(body.resource, body.action)
        asked = Access(resource=body.resource, action=body.action, ttl=ttl, reason=body.reason, at="request")
        granted = await (broker.access_through_tools(asked, wait=body.wait) if body.through else broker.access(asked, wait=body.wait))
        if isinstance(granted, PendingRequest):
            return _pending_response(granted, status=202)
        if isinstance(granted, ToolAccess):
            tools = {"ttl": granted.access.ttl, "tools": tools_to_json(granted.access.tools)}
            return JSONResponse({"request_id": granted.request, "action": granted.access.action.value, **tools})
        if await request.is_disconnected():
            # Nobody gets it, so nobody could release it.
            await broker.revoke_abandoned(granted.credential.id)
        handle, data = granted.credential, {name: value.reveal() for name, value in granted.fields.items()}
        names = {"credential_id": handle.id, "request_id": handle.request_id, "action": handle.action.value}
        return JSONResponse({**names, "expires_at": handle.expires_at.isoformat(), "data": data}, headers={"Cache-Control": "no-store"})

    async def state(request: Request) -> Response:
        query = validate_model("request", WaitQuery, dict(request.query_params))
        return _pending_response(await broker.request(request.path_params["request"], wait=query.wait))

    async def release(request: Request) -> Response:
        credential = request.path_params["credential"]
        return JSONResponse({"credential_id": credential, "state": await broker.release(credential)})

    async def identity(request: Request) -> Response:
        identity_token, expires = await broker.identity(validate_model("identity", IdentityQuery, dict(request.query_params)).audience)
        return JSONResponse({"token": identity_token.reveal(), "expires_at": expires.isoformat()})

    async def catalog(request: Request) -> Response:
        del request
        return JSONResponse({"items" if name == "access" else name: entries for name, entries in (await discover()).items()})

    routes = [
        Route("/v1/access", _JsonEndpoint(access, broker), methods=["POST"]),
        Route("/v1/access/{credential}/release", _JsonEndpoint(release, broker), methods=["POST"]),
        Route("/v1/requests/{request}", _JsonEndpoint(state, broker), methods=["GET"]),
        Route("/v1/identity", _JsonEndpoint(identity, broker), methods=["GET"]),
        Route("/v1/catalog", _JsonEndpoint(catalog, broker), methods=["GET"]),
        *model_routes(models),
        Route("/mcp", tools),
    ]
    return _Admission(Router(routes=routes, redirect_slashes=False), broker, token)


async def read_access_body(request: Request) -> AccessBody:
    """Return the body of a request for access. Raises InvalidInput, BodyTooLarge, MalformedBody."""
    try:
        content = json.loads(await read_request_body(request, what="a body", max_bytes=MAX_BODY_BYTES))
    except ValueError as error:
        raise InvalidInput("access", (Problem("", "the body is not JSON"),)) from error
    except RecursionError as error:
        raise MalformedBody("the body is nested too deeply") from error
    if isinstance(content, dict) and len(content) > MAX_KEYS:
        raise MalformedBody(f"the body has {len(content):,} keys; at most {MAX_KEYS} are read")
    return validate_model("access", AccessBody, content)


class _Admission:
    """Admits requests of the job within its rate limit, before any part of them is routed, parsed or validated. Delays its refusals."""

    def __init__(self, app: ASGIApp, broker: Broker, token: Secret | None) -> None:
        self._app = app
        self._broker = broker
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def receive_and_count() -> Message:
            message = await receive()
            self._broker.charge(len(message.get("body", b"")) / BYTES_PER_CALL)
            return message

        request = Request(scope)
        try:
            # A connection to the Unix socket, which has no port, was checked when it was made. Do not go by the client's address: it is
            # unknown on TCP, too, once the client has reset the connection.
            if scope["server"][1] is not None:
                scheme, _, sent = request.headers.get("authorization", "").partition(" ")
                if (
                    self._token is None
                    or scheme.lower() != "bearer"
                    or not hmac.compare_digest(sent.encode(), self._token.reveal().encode())
                ):
                    raise MissingBrokerToken("send `Authorization: Bearer $JUSTENOUGH_BROKER_TOKEN`")
            self._broker.admit()
            await self._app(scope, receive_and_count, send)
        except (MissingBrokerToken, TooManyCalls, AccessClosed) as error:
            if not isinstance(error, AccessClosed):
                await asyncio.sleep(REFUSAL_DELAY_S)
            respond = model_problem_response if scope["path"].startswith("/openai/") else problem_response
            await respond(error)(scope, receive, send)


class _JsonEndpoint:
    """Serves one route; errors become problem details. An ASGI application, because Starlette would wrap a function in two more layers."""

    def __init__(self, endpoint: Endpoint, broker: Broker) -> None:
        self._endpoint = endpoint
        self._broker = broker
        self._logged: set[type[Exception]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._endpoint(request)
        except MalformedBody as error:
            self._broker.charge(MALFORMED_COST)
            response = problem_response(error)
            response.headers["Connection"] = "close"
        except JustEnoughError as error:
            response = problem_response(error)
        except Exception as error:
            # Once of each kind: a job must not flood the worker's log.
            if type(error) not in self._logged:
                self._logged.add(type(error))
                log.exception("the broker failed unexpectedly", path=request.url.path)
            response = problem_response(error, detail="unexpected error; the worker's log has the details")
        await response(scope, receive, send)


def _pending_response(pending: PendingRequest, *, status: int = 200) -> Response:
    until = pending.respond_by.isoformat() if pending.respond_by else None
    body = {"request_id": pending.request_id, "state": pending.state.value, "tier": pending.tier, "respond_by": until}
    return JSONResponse(body, status_code=status, headers={"Location": f"/v1/requests/{pending.request_id}"} if status == 202 else None)


def problem_response(error: Exception, *, detail: str | None = None) -> Response:
    """Return the response for an error. `detail`: a text instead of the error's own."""
    status, title = next(problem for kind, problem in PROBLEMS.items() if isinstance(error, kind))
    more: dict[str, Any] = {"outcome": "denied", "policies": [], **denial_details(error)} if isinstance(error, NotPermitted) else {}
    if isinstance(error, InvalidInput):
        status, title = PROBLEMS[NotFound] if any(problem.path == "resource" for problem in error.problems) else (status, title)
        more = {"errors": [{"path": problem.path, "message": problem.message} for problem in error.problems]}
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail or str(error), **more}
    headers = error.headers if isinstance(error, OverQuota) else None
    return JSONResponse(body, status_code=status, headers=headers, media_type="application/problem+json")
