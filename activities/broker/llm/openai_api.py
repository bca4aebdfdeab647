"""The model gateway's wire: OpenAI's, as far as chat completions go; errors in OpenAI's form. Decides nothing.

POST /openai/v1/chat/completions   whole, or as server-sent events with `stream: true`
GET  /openai/v1/models             those that this job may use
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from activities.broker.broker import denial_details
from activities.broker.errors import BodyTooLarge, MissingBrokerToken, TooManyCalls
from activities.broker.llm.gateway import JSON_TYPE, ModelGateway
from activities.broker.llm.streaming_call import error_body
from activities.broker.llm.upstream_client import ModelCallError
from activities.issuing.results import ACCESS_CLOSED, AccessClosed, IssueRefused
from justenough.domain.core.errors import JustEnoughError, RetryLater

MAX_BODY_BYTES = 4 * 1024 * 1024
"""Of a question: long ones carry whole documents, and pictures."""
ROUTING_PARAMS = frozenset(
    {
        *("models", "route", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "model_list", "provider", "plugins"),
        *("api_base", "base_url", "api_key", "api_type", "api_version", "custom_llm_provider", "user_config", "router_settings_override"),
    }
)
"""By which routers in front of models (OpenRouter, LiteLLM) are told of other models, or servers, than `model` names."""
NO_MODEL_MESSAGE = "this job's spec asks for no model: say `model: {name: …, requests: …, tokens: …}`"
log = structlog.get_logger()

CheckCaller = Callable[[Request], None]
Answers = Callable[[ModelGateway, Request], Awaitable[Response]]


class InvalidChatRequest(Exception):
    """A body that is no question; `param` names what is wrong with it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


def model_routes(gateway: ModelGateway | None, check: CheckCaller) -> list[Route]:
    """Return the routes of one job's model gateway. `check` raises where it is not the job that asks."""

    def to_endpoint(answers: Answers) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                check(request)
                if gateway is None:
                    raise ModelCallError(NO_MODEL_MESSAGE, status=404, code="no_model", outcome="", again=False)
                return await answers(gateway, request)
            except InvalidChatRequest as error:
                return _error_response(
                    ModelCallError(str(error), status=400, code="invalid_request", outcome="", again=False), param=error.param
                )
            except JustEnoughError as error:
                return _error_response(_to_model_error(error))
            except Exception as error:  # noqa: BLE001 - its text may hold what was asked
                log.error("the model gateway failed unexpectedly", kind=type(error).__name__)  # noqa: TRY400 - for the same reason
                return _error_response(
                    ModelCallError("unexpected error; the worker's log names its kind", status=500, code="failed", outcome="")
                )

        return answer

    return [
        Route("/openai/v1/chat/completions", to_endpoint(_chat), methods=["POST"]),
        Route("/openai/v1/models", to_endpoint(_models), methods=["GET"]),
    ]


async def _chat(gateway: ModelGateway, request: Request) -> Response:
    with gateway.reserve_slot():
        content = await _read_body(request)
        media_type, pieces = await gateway.chat(lambda: _parse_chat_request(content))
    if media_type == JSON_TYPE:
        return Response(b"".join([piece async for piece in pieces]), media_type=media_type, headers={"Cache-Control": "no-store"})
    return StreamingResponse(pieces, media_type=media_type, headers={"Cache-Control": "no-store"})


async def _models(gateway: ModelGateway, request: Request) -> Response:
    del request
    with gateway.reserve_slot():
        return JSONResponse({"object": "list", "data": await gateway.models()})


async def _read_body(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MAX_BODY_BYTES:
            message = f"a question has at most {MAX_BODY_BYTES:,} bytes"
            raise BodyTooLarge(message)
    return bytes(content)


def _parse_chat_request(content: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError) as error:
        message = "the body is not JSON"
        raise InvalidChatRequest(message) from error
    if not isinstance(asked, dict):
        message = "the body must be a JSON object"
        raise InvalidChatRequest(message)
    options = asked.get("stream_options")
    for param, right, must in (
        ("model", isinstance(asked.get("model"), str), "must be a model's name"),
        ("messages", isinstance(asked.get("messages"), list), "must be a list"),
        ("stream", isinstance(asked.get("stream"), bool | None), "must be true or false"),
        ("stream_options", isinstance(options, dict | None), "must be an object"),
    ):
        if not right:
            message = f"{param} {must}"
            raise InvalidChatRequest(message, param)
    for param in sorted(ROUTING_PARAMS & asked.keys()):
        message = f"{param} is not passed on: `model` and the catalog alone choose which model answers; remove {param}"
        raise InvalidChatRequest(message, param)
    return asked


def _to_model_error(error: JustEnoughError) -> ModelCallError:
    """Convert any error to one in OpenAI's format."""
    if isinstance(error, ModelCallError):
        return error
    status, code = next(((status, code) for kind, status, code in _STATUSES if isinstance(error, kind)), (500, "failed"))
    wait = str(max(1, round(error.wait))) if isinstance(error, TooManyCalls) else None
    policies = denial_details(error).get("policies") if isinstance(error, IssueRefused) else None
    message = ACCESS_CLOSED if isinstance(error, AccessClosed) else f"{error} ({', '.join(policies)})" if policies else str(error)
    return ModelCallError(message, status=status, code=code, outcome="", wait=wait, again=isinstance(error, RetryLater))


_STATUSES: tuple[tuple[type[JustEnoughError], int, str], ...] = (
    (MissingBrokerToken, 401, "invalid_api_key"),
    (IssueRefused, 403, "denied"),
    (AccessClosed, 410, "closed"),
    (BodyTooLarge, 413, "question_too_large"),
    (TooManyCalls, 429, "asked_too_often"),
    (RetryLater, 503, "try_again"),
)


def _error_response(error: ModelCallError, *, param: str | None = None) -> Response:
    # OpenAI's own clients retry unless this header tells them not to.
    headers = {"x-should-retry": "true" if error.again else "false"}
    headers |= {"Retry-After": error.wait} if error.wait else {}
    return JSONResponse(error_body(error, param=param), status_code=error.status, headers=headers)
