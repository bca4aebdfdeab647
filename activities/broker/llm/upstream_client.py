"""Calls a model's server. Its errors never contain the key.

No proxies, no redirects, no compression: each would bypass the checks of the key or of the answer.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from functools import cache

import httpx

from justenough.adapters.outbound.pinned_client import iter_chunks
from justenough.domain.core.errors import GiveUp, InvalidInput
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER
from justenough.domain.core.redaction import Redactor
from justenough.domain.core.secret import Secret
from justenough.domain.llm.definition import ModelDef
from justenough.domain.tools.call import fill_headers

MAX_CONNECTIONS = 64
TIMEOUTS = httpx.Timeout(connect=10.0, read=60.0, write=30.0, pool=10.0)
"""Seconds without data. The gateway separately limits the total duration of a call."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_STREAM_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_MESSAGE_CHARS = 2_000
SSL_CONTEXT = cache(httpx.create_ssl_context)
"""Cached: loading the certificates takes longer than a call."""
UNREACHABLE = "upstream_unreachable"
STATUSES_PASSED_ON = frozenset({400, 404, 408, 409, 413, 422, 429})
"""Statuses of an upstream that are about the request itself."""


class ModelCallError(GiveUp):
    """A failed call: what the job gets, in OpenAI's format, and the outcome for the ledger."""

    def __init__(self, message: str, *, status: int, code: str, outcome: str, wait: str | None = None, again: bool = True) -> None:
        """`wait`: seconds to wait, as text. `again`: whether a client may retry by itself."""
        self.status = status
        self.code = code
        self.outcome = outcome
        self.wait = wait
        self.again = again
        super().__init__(message)


class LlmUpstream:
    """One job's connections to its model's server."""

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    @asynccontextmanager
    async def open_response(
        self, method: str, url: str, *, headers: Mapping[str, Secret], body: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """Yield the answer after reading its head. Raises ModelCallError."""
        revealed = {name: value.reveal() for name, value in headers.items()} | ({"Content-Type": "application/json"} if body else {})
        answered = False
        # An httpx error contains the request's headers, and a traceback would show them, so it is never kept as a cause.
        try:
            if self._client is None:
                self._client = httpx.AsyncClient(
                    verify=SSL_CONTEXT(),
                    trust_env=False,
                    follow_redirects=False,
                    timeout=TIMEOUTS,
                    limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=4),
                    headers={"User-Agent": "JustEnough", "Accept-Encoding": "identity"},
                )
            async with self._client.stream(method, url, headers=revealed, content=body) as answer:
                answered = True
                yield answer
        except (httpx.ReadTimeout, httpx.WriteTimeout, httpx.PoolTimeout):
            raise ModelCallError("the model's server does not answer", status=504, code="upstream_timeout", outcome="failed") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            message = f"the model's server {'broke off its answer' if answered else 'cannot be reached'} ({type(error).__name__})"
            raise ModelCallError(message, status=502, code="upstream_failed" if answered else UNREACHABLE, outcome="failed") from None

    async def close(self) -> None:
        if self._client:
            await self._client.aclose()


def model_headers(model: ModelDef, fields: Mapping[str, Secret]) -> dict[str, Secret]:
    """Return a model's headers with the credential's fields filled in. Raises ModelCallError if a field is missing or not valid in a header."""
    needed = {field for text in model.headers.values() for field in SCOPE_PLACEHOLDER.findall(text)}
    if missing := sorted(needed - fields.keys()):
        raise _misconfigured_error(f"the credential has no field {', '.join(missing)}; it has {', '.join(sorted(fields)) or 'none'}")
    try:
        filled = fill_headers(model.headers, {field: fields[field].reveal() for field in needed})
    except InvalidInput as error:
        raise _misconfigured_error("; ".join(map(str, error.problems))) from None
    return {name: Secret(text) for name, text in filled.items()}


async def read_body(answer: httpx.Response, *, max_bytes: int = MAX_ANSWER_BYTES) -> bytes:
    """Return an answer's body. Raises ModelCallError if it is too large or compressed."""
    require_uncompressed(answer)
    content = bytearray()
    async for chunk in iter_chunks(answer):
        content += chunk
        if len(content) > max_bytes:
            raise answer_too_large()
    return bytes(content)


def require_uncompressed(answer: httpx.Response) -> None:
    """Raise ModelCallError if the answer is compressed: the redactor could not find the key in it."""
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        message = "the model's server compressed its answer despite `Accept-Encoding: identity`"
        raise ModelCallError(message, status=502, code="upstream_failed", outcome="failed")


def answer_too_large() -> ModelCallError:
    return ModelCallError("the model's answer is too large", status=502, code="answer_too_large", outcome="cut", again=False)


def not_json() -> ModelCallError:
    return ModelCallError("the model's server did not answer with a JSON object", status=502, code="upstream_failed", outcome="failed")


async def upstream_refusal(answer: httpx.Response, redactor: Redactor) -> ModelCallError:
    """Return the error that the job gets for an upstream's answer other than 200."""
    status = answer.status_code
    if status in {401, 403}:
        # The server's own text may contain parts of the key.
        message = f"the model's server rejected the gateway's key ({status})"
        return ModelCallError(message, status=502, code="upstream_refused_key", outcome="failed")
    if status not in STATUSES_PASSED_ON:
        return ModelCallError(f"the model's server failed ({status})", status=502, code="upstream_failed", outcome="failed")

    def scrub(text: object) -> str:
        scrubbed = redactor.feed(text.encode("utf-8", "replace")) + redactor.flush() if isinstance(text, str) else b""
        return scrubbed.decode("utf-8", "replace")[:MAX_MESSAGE_CHARS]

    body: object = None
    with suppress(ModelCallError, ValueError, RecursionError):
        body = json.loads(await read_body(answer, max_bytes=MAX_ERROR_BYTES))
    error = body.get("error") if isinstance(body, dict) else None
    details = error if isinstance(error, dict) else {"message": error}
    message, code = scrub(details.get("message")), scrub(details.get("code"))
    wait = answer.headers.get("retry-after", "")
    return ModelCallError(
        message or f"the model's server refused the request ({status})",
        status=status,
        code=code[:64] or "upstream_refused",
        outcome="refused",
        wait=wait if wait.isascii() and wait.isdigit() and len(wait) < 6 else None,
    )


def _misconfigured_error(why: str) -> ModelCallError:
    message = f"the model's catalog entry does not match its key: {why}"
    return ModelCallError(message, status=500, code="misconfigured", outcome="failed", again=False)
