"""The model gateway's HTTP API: OpenAI's chat completions, with errors in OpenAI's format. Makes no decisions.

POST /openai/v1/chat/completions   one answer, or server-sent events with `stream: true`
GET  /openai/v1/models             the models that this job may use
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from activities.broker.broker import denial_details
from activities.broker.errors import BodyTooLarge, MalformedBody, MissingBrokerToken
from activities.broker.llm.gateway import JSON_TYPE, ModelGateway
from activities.broker.llm.streaming_call import error_body
from activities.broker.llm.upstream_client import ModelCallError
from activities.issuing.results import ACCESS_CLOSED, AccessClosed, IssueRefused
from justenough.domain.core.errors import JustEnoughError, OverQuota, RetryLater

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Bytes of one request's body, which may include documents and pictures."""
ROUTING_PARAMS = frozenset(
    {
        *("model", "models", "model_list", "route", "deployment_id", "extra_body", "provider", "plugins"),
        *("fallbacks", "context_window_fallbacks", "context_window_fallback_dict", "content_policy_fallbacks"),
        *("api_base", "base_url", "api_key", "api_type", "api_version", "custom_llm_provider", "user_config", "router_settings_override"),
    }
)
"""Parameters by which model routers (OpenRouter, LiteLLM) choose other models or servers than `model` names. `model` is one of them in any
other spelling, such as `Model`: servers that ignore case in JSON keys use the last of the two."""
NO_MODEL_MESSAGE = "this job's spec has no model: add `model: {name: …, requests: …, tokens: …}`"
log = structlog.get_logger()

Answers = Callable[[ModelGateway, Request], Awaitable[Response]]


class InvalidChatRequest(Exception):
    """The body is not a valid chat request; `param` names the invalid parameter."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


def model_routes(gateway: ModelGateway | None) -> list[Route]:
    """Return the routes of one job's model gateway, for requests that were admitted."""

    def to_endpoint(answers: Answers) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                if gateway is None:
                    raise ModelCallError(NO_MODEL_MESSAGE, status=404, code="no_model", outcome="", again=False)
                return await answers(gateway, request)
            except InvalidChatRequest as error:
                invalid = ModelCallError(str(error), status=400, code="invalid_request", outcome="", again=False)
                return _error_response(invalid, param=error.param)
            except JustEnoughError as error:
                return model_problem_response(error)
            except Exception as error:  # noqa: BLE001 - its text may contain the request
                log.error("the model gateway failed unexpectedly", kind=type(error).__name__)  # noqa: TRY400 - for the same reason
                message = "unexpected error; the worker's log has its type"
                return _error_response(ModelCallError(message, status=500, code="failed", outcome=""))

        return answer

    return [
        Route("/openai/v1/chat/completions", to_endpoint(_chat), methods=["POST"]),
        Route("/openai/v1/models", to_endpoint(_models), methods=["GET"]),
    ]


async def _chat(gateway: ModelGateway, request: Request) -> Response:
    with gateway.reserve_slot():
        content = await read_request_body(request, what="a chat request", max_bytes=MAX_BODY_BYTES)
        media_type, pieces = await gateway.chat(lambda: _parse_chat_request(content))
    if media_type == JSON_TYPE:
        return Response(b"".join([piece async for piece in pieces]), media_type=media_type, headers={"Cache-Control": "no-store"})
    return StreamingResponse(pieces, media_type=media_type, headers={"Cache-Control": "no-store"})


async def _models(gateway: ModelGateway, request: Request) -> Response:
    del request
    with gateway.reserve_slot():
        return JSONResponse({"object": "list", "data": await gateway.models()})


async def read_request_body(request: Request, *, what: str, max_bytes: int) -> bytes:
    """Return a request's body. Raises BodyTooLarge, MalformedBody; `what` names the body in BodyTooLarge's message."""
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > max_bytes:
                raise BodyTooLarge(f"{what} may have at most {max_bytes:,} bytes")
    except ClientDisconnect as error:
        raise MalformedBody("the client left before the body arrived") from error
    return bytes(content)


def _parse_chat_request(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidChatRequest("the body is not JSON") from error
    if not isinstance(body, dict):
        raise InvalidChatRequest("the body must be a JSON object")
    for param, kind, must in (
        ("model", str, "must be a model's name"),
        ("messages", list, "must be a list"),
        ("stream", bool | None, "must be true or false"),
        ("stream_options", dict | None, "must be an object"),
    ):
        if not isinstance(body.get(param), kind):
            raise InvalidChatRequest(f"{param} {must}", param)
    for param in sorted(body.keys() - {"model"}):
        if param.casefold() in ROUTING_PARAMS:
            raise InvalidChatRequest(f"{param} is not passed on: `model` and the catalog choose which model answers; remove {param}", param)
    return body


def model_problem_response(error: JustEnoughError) -> Response:
    """Return the response for any of our errors, in OpenAI's format."""
    if isinstance(error, ModelCallError):
        return _error_response(error)
    status, code = next(((status, code) for kind, status, code in _STATUSES if isinstance(error, kind)), (500, "failed"))
    wait = error.headers["Retry-After"] if isinstance(error, OverQuota) else None
    policies = denial_details(error).get("policies") if isinstance(error, IssueRefused) else None
    message = ACCESS_CLOSED if isinstance(error, AccessClosed) else f"{error} ({', '.join(policies)})" if policies else str(error)
    return _error_response(ModelCallError(message, status=status, code=code, outcome="", wait=wait, again=isinstance(error, RetryLater)))


_STATUSES: tuple[tuple[type[JustEnoughError], int, str], ...] = (
    (MissingBrokerToken, 401, "invalid_api_key"),
    (IssueRefused, 403, "denied"),
    (AccessClosed, 410, "closed"),
    (BodyTooLarge, 413, "question_too_large"),
    (OverQuota, 429, "asked_too_often"),
    (RetryLater, 503, "try_again"),
)


def _error_response(error: ModelCallError, *, param: str | None = None) -> Response:
    # OpenAI's own clients retry unless this header forbids it.
    headers = {"x-should-retry": "true" if error.again else "false"}
    headers |= {"Retry-After": error.wait} if error.wait else {}
    return JSONResponse(error_body(error, param=param), status_code=error.status, headers=headers)
