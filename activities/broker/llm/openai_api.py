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

from activities.broker.broker import why_denied
from activities.broker.errors import AskedTooOften, TooLarge, Unauthenticated
from activities.broker.llm.gateway import JSON, Models
from activities.broker.llm.streaming_call import told
from activities.broker.llm.upstream_client import NoAnswer
from activities.issuing.results import CLOSED, Closed, NotIssued
from justenough.domain.core.errors import JustEnoughError, RetryLater

MOST_BYTES = 4 * 1024 * 1024
"""Of a question: long ones carry whole documents, and pictures."""
ELSEWHERE = frozenset(
    {
        *("models", "route", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "model_list", "provider", "plugins"),
        *("api_base", "base_url", "api_key", "api_type", "api_version", "custom_llm_provider", "user_config", "router_settings_override"),
    }
)
"""By which routers in front of models (OpenRouter, LiteLLM) are told of other models, or servers, than `model` names."""
NO_MODEL = "this job's spec asks for no model: say `model: {name: …, requests: …, tokens: …}`"
log = structlog.get_logger()

Check = Callable[[Request], None]
Answers = Callable[[Models, Request], Awaitable[Response]]


class Wrong(Exception):
    """A body that is no question; `param` names what is wrong with it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.param = param
        super().__init__(message)


def model_routes(models: Models | None, check: Check) -> list[Route]:
    """Return the routes of one job's model gateway. `check` raises where it is not the job that asks."""

    def answering(answers: Answers) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            try:
                check(request)
                if models is None:
                    raise NoAnswer(NO_MODEL, status=404, code="no_model", outcome="", again=False)
                return await answers(models, request)
            except Wrong as error:
                return _failed(NoAnswer(str(error), status=400, code="invalid_request", outcome="", again=False), param=error.param)
            except JustEnoughError as error:
                return _failed(_as_told(error))
            except Exception as error:  # noqa: BLE001 - its text may hold what was asked
                log.error("the model gateway failed unexpectedly", kind=type(error).__name__)  # noqa: TRY400 - for the same reason
                return _failed(NoAnswer("unexpected error; the worker's log names its kind", status=500, code="failed", outcome=""))

        return answer

    return [
        Route("/openai/v1/chat/completions", answering(_chat), methods=["POST"]),
        Route("/openai/v1/models", answering(_models), methods=["GET"]),
    ]


async def _chat(models: Models, request: Request) -> Response:
    with models.room():
        content = await _content(request)
        media_type, pieces = await models.chat(lambda: _checked(content))
    if media_type == JSON:
        return Response(b"".join([piece async for piece in pieces]), media_type=media_type, headers={"Cache-Control": "no-store"})
    return StreamingResponse(pieces, media_type=media_type, headers={"Cache-Control": "no-store"})


async def _models(models: Models, request: Request) -> Response:
    del request
    with models.room():
        return JSONResponse({"object": "list", "data": await models.models()})


async def _content(request: Request) -> bytes:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > MOST_BYTES:
            message = f"a question has at most {MOST_BYTES:,} bytes"
            raise TooLarge(message)
    return bytes(content)


def _checked(content: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError) as error:
        message = "the body is not JSON"
        raise Wrong(message) from error
    if not isinstance(asked, dict):
        message = "the body must be a JSON object"
        raise Wrong(message)
    options = asked.get("stream_options")
    for param, right, must in (
        ("model", isinstance(asked.get("model"), str), "must be a model's name"),
        ("messages", isinstance(asked.get("messages"), list), "must be a list"),
        ("stream", isinstance(asked.get("stream"), bool | None), "must be true or false"),
        ("stream_options", isinstance(options, dict | None), "must be an object"),
    ):
        if not right:
            message = f"{param} {must}"
            raise Wrong(message, param)
    for param in sorted(ELSEWHERE & asked.keys()):
        message = f"{param} is not passed on: which model answers is what `model` says, and the catalog allows"
        raise Wrong(message, param)
    return asked


def _as_told(error: JustEnoughError) -> NoAnswer:
    """Return any error as the wire tells it."""
    if isinstance(error, NoAnswer):
        return error
    status, code = next(((status, code) for kind, status, code in _STATUSES if isinstance(error, kind)), (500, "failed"))
    wait = str(max(1, round(error.wait))) if isinstance(error, AskedTooOften) else None
    policies = why_denied(error).get("policies") if isinstance(error, NotIssued) else None
    message = CLOSED if isinstance(error, Closed) else f"{error} ({', '.join(policies)})" if policies else str(error)
    return NoAnswer(message, status=status, code=code, outcome="", wait=wait, again=isinstance(error, RetryLater))


_STATUSES: tuple[tuple[type[JustEnoughError], int, str], ...] = (
    (Unauthenticated, 401, "invalid_api_key"),
    (NotIssued, 403, "denied"),
    (Closed, 410, "closed"),
    (TooLarge, 413, "question_too_large"),
    (AskedTooOften, 429, "asked_too_often"),
    (RetryLater, 503, "try_again"),
)


def _failed(error: NoAnswer, *, param: str | None = None) -> Response:
    # OpenAI's own clients try again by themselves unless they are told not to.
    headers = {"x-should-retry": "true" if error.again else "false"}
    headers |= {"Retry-After": error.wait} if error.wait else {}
    return JSONResponse(told(error, param=param), status_code=error.status, headers=headers)
