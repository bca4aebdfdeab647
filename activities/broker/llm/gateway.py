"""The model gateway: makes a job's model calls with a key that the job never sees, within its budget. Knows no wire format.

The gateway borrows the key for as long as its grant lasts and checks repeatedly that the job may still use it; the job gets only
answers.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import httpx
import structlog

from activities.broker.broker import Broker
from activities.broker.errors import TooManyCalls
from activities.broker.llm.streaming_call import ChatRequest, StreamingCall
from activities.broker.llm.upstream_client import (
    MAX_STREAM_BYTES,
    UNREACHABLE,
    LlmUpstream,
    ModelCallError,
    answer_too_large,
    model_headers,
    not_json,
    read_body,
    require_uncompressed,
    upstream_refusal,
)
from activities.broker.llm.usage_recorder import ModelUsageRecorder
from activities.delivery.delivery import secret_texts
from activities.issuing.results import ACCESS_CLOSED, AccessClosed, IssuedCredential, IssueRefused, PendingRequest
from justenough.adapters.outbound.pinned_client import iter_chunks
from justenough.domain.catalog.gateway_validation import model_access
from justenough.domain.core.errors import RetryLater
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.spec import ModelUse
from justenough.domain.llm.definition import ModelDef
from justenough.domain.llm.metering import StreamMeter, TokenBudget, TokenUsage, usage_of_body
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder

APPROVAL_WAIT_S = 50.0
"""Seconds that a call waits for people if the key needs their approval."""
RECHECK_INTERVAL_S = 10.0
"""Seconds after which the gateway checks again whether it may use the key."""
MAX_CONCURRENT_CALLS = 16
"""Concurrent calls of one job: each may hold a large request and a large answer in memory."""
MAX_CONCURRENT_PARSES = 2
"""Requests of one job that are parsed at once: parsed JSON can take thirty times the memory of its text."""
MAX_EVENT_BYTES = 1024 * 1024
"""Bytes of one event of a stream."""
EVENT_STREAM_TYPE, JSON_TYPE = "text/event-stream", "application/json"
log = structlog.get_logger()

T = TypeVar("T")


class ModelGateway:
    """One job's gateway. Cancels every call when the broker closes."""

    def __init__(self, deps: Deps, verified: VerifiedOrder, broker: Broker, use: ModelUse) -> None:
        self._deps = deps
        self._broker = broker
        self._use = use
        self._longest = verified.spec.run.timeout
        self._budget = TokenBudget(use.requests, use.tokens)
        self.usage = ModelUsageRecorder(deps, verified.statement.job, use.name)
        self._upstream = LlmUpstream()
        self._turn = asyncio.Lock()
        self._readers = asyncio.Semaphore(MAX_CONCURRENT_PARSES)
        self._lending = AsyncExitStack()
        self._lent: IssuedCredential | None = None
        self._lent_for: ModelDef | None = None
        """The model as the catalog defined it when the key was borrowed: the key may belong to no other server."""
        self._checked_at = 0.0
        self._revoked_why = ""
        """The reason if a person revoked the key, else empty. Once it is set, no further key is requested."""
        self._reading = 0
        self._calls: set[asyncio.Task[Any]] = set()
        self._ending: asyncio.Task[None] | None = None

    @contextmanager
    def reserve_slot(self) -> Iterator[None]:
        """Reserve a slot for one call, which is made in the block. Raises TooManyCalls."""
        if max(self._reading, len(self._calls)) >= MAX_CONCURRENT_CALLS:
            raise TooManyCalls(1.0)
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

    async def chat(self, read: Callable[[], dict[str, Any]]) -> tuple[str, AsyncIterator[bytes]]:
        """Make a call; return its media type and the pieces of its answer as they come. `read` returns the checked request body.

        Raises what `read` raises, ModelCallError, AccessDenied, IssueRefused, AccessClosed, TooManyCalls, or RetryLater.
        """
        async with self._readers:
            # In a thread: a long request takes a while to parse, and this loop serves every job of the worker.
            request = await asyncio.to_thread(lambda: ChatRequest.of(read()))
        try:
            model = self._definition()
            if not model.allows(request.model):
                message = f"this job may not use the model {request.model[:128]!r}; it may use {', '.join(model.allow)}"
                raise ModelCallError(message, status=403, code="model_not_allowed", outcome="not_allowed", again=False)
            self._require_budget()
            item = await self._borrow_key(model)
            self._require_room()
            self._require_budget()
            headers = model_headers(model, item.fields)
        except (ModelCallError, IssueRefused) as error:
            outcome = error.outcome if isinstance(error, ModelCallError) else "denied"
            self.usage.count_call(request.model, outcome, TokenUsage())
            raise
        self._budget = self._budget.with_call()
        call = StreamingCall(request)
        exchange = self._upstream.open_response("POST", f"{model.url.rstrip('/')}/chat/completions", headers=headers, body=request.body)
        task = self._start(self._run_call(call, exchange, item, seconds=self._call_timeout(model, item)))

        def count(task: asyncio.Task[None]) -> None:
            if task.cancelled():
                call.end(ModelCallError(ACCESS_CLOSED, status=410, code="closed", outcome=call.outcome, again=False))
            self._budget = self._budget.with_usage(call.usage)
            self.usage.count_call(call.request.model, call.outcome, call.usage)

        task.add_done_callback(count)
        return await call.head, call.pieces(task)

    async def models(self) -> list[dict[str, Any]]:
        """Return the upstream's models that this job may use, in OpenAI's format. Raises as `chat` does."""
        model = self._definition()
        item = await self._borrow_key(model)
        self._require_room()
        listing = self._start(self._list_models(model, item))
        await asyncio.wait({listing})
        if listing.cancelled():
            raise AccessClosed(ACCESS_CLOSED)
        return listing.result()

    async def drain(self) -> None:
        """Wait until no call is under way, then release the upstream's key. Close the broker first."""
        if self._ending:
            await self._ending
        await self.usage.wait_written()
        await self._release_key()
        await self._upstream.close()

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a task that is cancelled when the broker closes."""

        async def cancel_when_closed() -> None:
            await self._broker.closed.wait()
            while self._calls:
                for call in self._calls:
                    call.cancel()
                await asyncio.wait(self._calls)

        if self._ending is None:
            self._ending = asyncio.create_task(cancel_when_closed())
        task = asyncio.create_task(work)
        if self._ending.done():
            task.cancel()
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    def _definition(self) -> ModelDef:
        model = self._deps.config.current().catalog.models.get(self._use.name)
        if model is None:
            raise _missing_model_error(self._use.name)
        return model

    def _require_room(self) -> None:
        # Calls that were read together with this one may have begun since its slot was reserved.
        if len(self._calls) >= MAX_CONCURRENT_CALLS:
            raise TooManyCalls(1.0)

    def _require_budget(self) -> None:
        over = self._budget.exhausted_part
        if over:
            raise _budget_error(over, self._budget)

    def _call_timeout(self, model: ModelDef, item: IssuedCredential) -> float:
        """Return the seconds that a call may take: no call outlives the grant of its key."""
        return min(float(model.timeout), item.seconds_left(now=self._deps.now(), ticks=self._deps.ticks()))

    async def _borrow_key(self, model: ModelDef) -> IssuedCredential:
        """Return the model's key, borrowed again if it is not usable. Raises ModelCallError if people must answer first."""
        began = self._deps.ticks()
        async with self._turn:
            if self._lent and self._lent_for == model and await self._is_key_usable(self._lent):
                return self._lent
            # Only a revocation is final. A key whose grant has ended, whose approval was withdrawn, or that was not renewed is requested again.
            if self._lent and await self._broker.was_revoked(self._lent):
                self._revoked_why = "the model's key was revoked for this job"
            await self._release_key()
            if self._revoked_why:
                raise IssueRefused(self._revoked_why)
            access = model_access(self._use, self._deps.config.current().catalog)
            if access is None:
                raise _missing_model_error(self._use.name)
            access = access.model_copy(update={"ttl": max(1, min(access.ttl, self._longest))})
            lending = self._broker.borrow(
                access, used_for=f"model {self._use.name}", wait=max(0.0, began + APPROVAL_WAIT_S - self._deps.ticks())
            )
            item = await self._lending.enter_async_context(lending)
            if isinstance(item, PendingRequest):
                message = f"the model's key waits for approval at tier {item.tier}: request {item.request_id}"
                raise ModelCallError(message, status=503, code="waiting_for_approval", outcome="denied", wait="5")
            self._lent, self._lent_for, self._checked_at = item, model, self._deps.ticks()
            self.usage.record_key_use(item.credential.id)
            if self._definition() != model:
                # It changed while people were asked, for example. The next call uses what it is now.
                raise ModelCallError("the catalog has changed; try again", status=503, code="try_again", outcome="failed")
            return item

    async def _is_key_usable(self, item: IssuedCredential) -> bool:
        if item.seconds_left(now=self._deps.now(), ticks=self._deps.ticks()) < 1:
            return False
        if self._deps.ticks() - self._checked_at < RECHECK_INTERVAL_S:
            return True
        if await self._broker.has_ended(item):
            return False
        self._checked_at = self._deps.ticks()
        return await self._broker.is_still_allowed(item)

    async def _release_key(self) -> None:
        self._lent = None
        lending, self._lending = self._lending, AsyncExitStack()
        with suppress(AccessClosed):
            await lending.aclose()

    async def _list_models(self, model: ModelDef, item: IssuedCredential) -> list[dict[str, Any]]:
        url, redactor, headers = f"{model.url.rstrip('/')}/models", Redactor(secret_texts(item.fields)), model_headers(model, item.fields)
        exchange = self._upstream.open_response("GET", url, headers=headers)
        try:
            async with asyncio.timeout(self._call_timeout(model, item)), exchange as answer:
                if answer.status_code != httpx.codes.OK:
                    raise await upstream_refusal(answer, redactor)
                content = await read_body(answer)
                listing = await asyncio.to_thread(lambda: _json_object(redactor.feed(content) + redactor.flush()))
        except TimeoutError:
            raise _timeout_error() from None
        models = listing.get("data")
        return [each for each in models if isinstance(each, dict) and model.allows(str(each.get("id")))] if isinstance(models, list) else []

    async def _run_call(self, call: StreamingCall, exchange: Any, item: IssuedCredential, *, seconds: float) -> None:
        """Make a call and pass its answer (metered, without the key) or its error on to the job. Raises only CancelledError."""
        redactor = Redactor(secret_texts(item.fields))
        try:
            async with asyncio.timeout(seconds), exchange as answer:
                if answer.status_code != httpx.codes.OK:
                    call.usage = TokenUsage()
                    raise await upstream_refusal(answer, redactor)
                if answer.headers.get("content-type", "").partition(";")[0].strip().lower() == EVENT_STREAM_TYPE:
                    require_uncompressed(answer)
                    await self._stream_answer(call, answer, redactor, item)
                else:
                    content = await read_body(answer)
                    # In threads: a long answer takes a while to parse, and this loop serves every job of the worker.
                    call.usage = await asyncio.to_thread(lambda: usage_of_body(_json_object(content), prompt=call.request.prompt))
                    redacted = await asyncio.to_thread(lambda: redactor.feed(content) + redactor.flush())
                    call.outcome = "answered"
                    call.head.set_result(JSON_TYPE)
                    await call.pass_on(redacted)
            call.end()
        except ModelCallError as error:
            if error.code == UNREACHABLE:
                call.usage = TokenUsage()
            call.end(error)
        except TimeoutError:
            call.end(_timeout_error())
        except Exception as error:  # noqa: BLE001 - its text may contain the request, and with it the key
            log.error("a model's call failed unexpectedly", kind=type(error).__name__)  # noqa: TRY400 - for the same reason without a traceback
            message = "unexpected error; the worker's log has its type"
            call.end(ModelCallError(message, status=502, code="upstream_failed", outcome="failed"))

    async def _stream_answer(self, call: StreamingCall, answer: httpx.Response, redactor: Redactor, item: IssuedCredential) -> None:
        metered, size = StreamMeter(prompt=call.request.prompt, usage_requested=call.request.wants_usage), 0
        call.head.set_result(EVENT_STREAM_TYPE)
        checked_at = self._deps.ticks()
        async for chunk in iter_chunks(answer):
            if self._deps.ticks() - checked_at >= RECHECK_INTERVAL_S:
                checked_at = self._deps.ticks()
                # A stream may take an hour. While a server is unreachable, it continues, as other access of a running job does.
                with suppress(RetryLater, AccessClosed):
                    async with self._turn:
                        usable = self._lent is item and await self._is_key_usable(item)
                    if not usable:
                        message = "the model's key may no longer be used: it was revoked, its grant has ended, or policy denies it now"
                        raise ModelCallError(message, status=403, code="denied", outcome="cut", again=False)
            size += len(chunk)
            passed = redactor.feed(metered.feed(chunk))
            call.usage = metered.usage
            if metered.done:
                break
            if size > MAX_STREAM_BYTES or metered.buffered_bytes > MAX_EVENT_BYTES:
                raise answer_too_large()
            if call.usage.tokens > self._budget.tokens_left:
                raise _budget_error("tokens", self._budget)
            if passed:
                await call.pass_on(passed)
        else:
            passed = redactor.feed(metered.flush())
        # Set this before passing on the end: a client disconnects as soon as it has the end.
        call.outcome = "answered" if metered.done else "cut"
        await call.pass_on(passed + redactor.flush())


@asynccontextmanager
async def drain_model_calls(gateway: ModelGateway | None, broker: Broker) -> AsyncIterator[None]:
    """When the block ends, close the broker and wait until no model call is under way."""
    try:
        yield
    finally:
        broker.close()
        if gateway:
            await gateway.drain()


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        # UTF-8 only: the redactor would miss the key in another encoding.
        parsed = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise not_json() from None
    if not isinstance(parsed, dict):
        raise not_json()
    return parsed


def _missing_model_error(name: str) -> ModelCallError:
    message = f"the catalog no longer has the model {name}"
    return ModelCallError(message, status=404, code="model_not_found", outcome="not_allowed", again=False)


def _timeout_error() -> ModelCallError:
    return ModelCallError("the model call timed out", status=504, code="upstream_timeout", outcome="cut")


def _budget_error(which: str, budget: TokenBudget) -> ModelCallError:
    most = budget.requests if which == "requests" else budget.tokens
    message = f"this job has used its budget of {most:,} model {which}"
    return ModelCallError(message, status=429, code=f"{which}_budget_exceeded", outcome="over_budget", again=False)
