"""A model's server as the gateway calls it: where a key may be in hand. What goes wrong there says what and never the key.

No proxies, no redirects, no compression: each would take the key, or the answer, past what is checked here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from ssl import SSLContext
from typing import Any

import httpx

from justenough.domain.core.errors import GiveUp
from justenough.domain.core.placeholders import SCOPE_PLACEHOLDER
from justenough.domain.core.redaction import Redactor
from justenough.domain.core.secret import Secret
from justenough.domain.llm.definition import ModelDef

MAX_CONNECTIONS = 64
TIMEOUTS = httpx.Timeout(connect=10.0, read=60.0, write=30.0, pool=10.0)
"""Seconds: an upstream that says nothing for so long is given up, however long a call may take in all."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
MAX_STREAM_BYTES = 64 * 1024 * 1024
MAX_ERROR_BYTES = 64 * 1024
MAX_MESSAGE_CHARS = 2_000
UNREACHABLE = "upstream_unreachable"
STATUSES_PASSED_ON = frozenset({400, 404, 408, 409, 413, 422, 429})
"""What an upstream may say of the question itself."""


class ModelCallError(GiveUp):
    """A call that comes to nothing, as the job is told of it in OpenAI's form; with what the ledger calls it."""

    def __init__(self, message: str, *, status: int, code: str, outcome: str, wait: str | None = None, again: bool = True) -> None:
        """`wait`: seconds to wait, as text. `again`: whether a client may try again by itself."""
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
        """Yield the answer, of which only its head has been read. Raises ModelCallError."""
        shown = {name: value.reveal() for name, value in headers.items()} | ({"Content-Type": "application/json"} if body else {})
        # An httpx error holds the request with its headers: kept as a cause, a traceback would show them.
        try:
            if self._client is None:
                self._client = httpx.AsyncClient(
                    verify=_ssl_context(),
                    trust_env=False,
                    follow_redirects=False,
                    timeout=TIMEOUTS,
                    limits=httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=4),
                    headers={"User-Agent": "JustEnough", "Accept-Encoding": "identity"},
                )
            async with self._client.stream(method, url, headers=shown, content=body) as answer:
                yield answer
        except httpx.TimeoutException:
            raise ModelCallError("the model's server does not answer", status=504, code="upstream_timeout", outcome="failed") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            message = f"the model's server cannot be reached ({type(error).__name__})"
            raise ModelCallError(message, status=502, code=UNREACHABLE, outcome="failed") from None

    async def close(self) -> None:
        """Close every connection."""
        if self._client:
            await self._client.aclose()


@cache
def _ssl_context() -> SSLContext:
    """Return the TLS context. Cached: loading the certificates takes longer than a call."""
    return httpx.create_ssl_context()


def model_headers(model: ModelDef, fields: Mapping[str, Secret]) -> dict[str, Secret]:
    """Return a model's headers with the credential's fields filled in. Raises ModelCallError if a field is missing or fits in no header."""
    wanted = {field for text in model.headers.values() for field in SCOPE_PLACEHOLDER.findall(text)}
    if missing := sorted(wanted - fields.keys()):
        raise _misconfigured_error(f"the credential has no field {', '.join(missing)}; it has {', '.join(sorted(fields)) or 'none'}")
    for field in sorted(wanted):
        text = fields[field].reveal()
        if not text.isascii() or not text.isprintable():
            raise _misconfigured_error(f"the credential's field {field} has characters that no header can hold")
    return {name: Secret(SCOPE_PLACEHOLDER.sub(lambda found: fields[found[1]].reveal(), text)) for name, text in model.headers.items()}


async def read_body(answer: httpx.Response) -> bytes:
    """Return an answer's body. Raises ModelCallError if it is too large or compressed."""
    require_uncompressed(answer)
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise answer_too_large()
    return bytes(content)


def require_uncompressed(answer: httpx.Response) -> None:
    """Raise ModelCallError if the answer is compressed: the key could not be found in it."""
    if answer.headers.get("content-encoding", "identity").lower() != "identity":
        raise ModelCallError("the model's server compresses its answer, unasked", status=502, code="upstream_failed", outcome="failed")


def answer_too_large() -> ModelCallError:
    """Return the error for an answer that is too large."""
    return ModelCallError("the model's answer is larger than any may be", status=502, code="answer_too_large", outcome="cut", again=False)


def not_json() -> ModelCallError:
    """Return the error for an answer that is not a JSON object."""
    return ModelCallError("the model's server answers with no JSON object", status=502, code="upstream_failed", outcome="failed")


async def upstream_refusal(answer: httpx.Response, redactor: Redactor) -> ModelCallError:
    """Return the error that the job gets for an upstream's answer other than 200."""
    status = answer.status_code
    if status in {401, 403}:
        # The server's own text may show parts of the key.
        return ModelCallError(
            f"the model's server does not take the gateway's key ({status})", status=502, code="upstream_refused_key", outcome="failed"
        )
    if status not in STATUSES_PASSED_ON:
        return ModelCallError(f"the model's server failed ({status})", status=502, code="upstream_failed", outcome="failed")

    def scrub(text: object) -> str:
        scrubbed = redactor.feed(text.encode("utf-8", "replace")) + redactor.flush() if isinstance(text, str) else b""
        return scrubbed.decode("utf-8", "replace")[:MAX_MESSAGE_CHARS]

    details = await _read_error(answer)
    message, code = scrub(details.get("message")), scrub(details.get("code"))
    wait = answer.headers.get("retry-after", "")
    return ModelCallError(
        message or f"the model's server refused the request ({status})",
        status=status,
        code=code[:64] or "upstream_refused",
        outcome="refused",
        wait=wait if wait.isascii() and wait.isdigit() and len(wait) < 6 else None,
    )


async def _read_error(answer: httpx.Response) -> Mapping[str, Any]:
    content = b""
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > MAX_ERROR_BYTES:
            return {}
    try:
        found = json.loads(content)
    except ValueError:
        return {}
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else {"message": error}


def _misconfigured_error(why: str) -> ModelCallError:
    return ModelCallError(
        f"the model's catalog entry and its key do not fit: {why}", status=500, code="misconfigured", outcome="failed", again=False
    )
