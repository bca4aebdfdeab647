"""The model gateway: a job's calls of its model, with a key that the job never sees and a budget that it does not pass. Knows no wire.

The key is lent to the gateway for as long as its grant lasts, and asked about again while it is used; the job gets answers only.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, TypeVar

import httpx
import structlog

from activities.broker.broker import Door, Pending
from activities.broker.errors import AskedTooOften
from activities.broker.llm.streaming_call import Call, Question
from activities.broker.llm.upstream_client import (
    MOST_STREAMED,
    UNREACHABLE,
    NoAnswer,
    Upstream,
    headers_of,
    must_be_plain,
    no_json,
    refusal,
    too_large,
    whole,
)
from activities.broker.llm.usage_recorder import Used
from activities.delivery.delivery import secrets_of, texts_of
from activities.issuing.results import CLOSED, Closed, Issuance, NotIssued
from justenough.domain.catalog.llm_validation import access_of
from justenough.domain.core.errors import NotFound
from justenough.domain.core.redaction import Redactor
from justenough.domain.jobs.spec import Access, ModelUse
from justenough.domain.ledger.events import Event
from justenough.domain.llm.definition import ModelDef
from justenough.domain.llm.metering import Budget, Metered, Usage, whole_usage
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder

WAITS = 50.0
"""Seconds that a call waits for people, where the key needs their approval."""
LOOK_AGAIN = 10.0
"""Seconds after which it is asked again whether the key may be used on."""
AT_ONCE = 16
"""Calls of one job that are on their way: each may hold a whole document of its own and one of the model's."""
READ_AT_ONCE = 2
"""Questions of one job that are values at a time, and not bytes: of what is all brackets, values take thirty times as much."""
MOST_HELD = 1024 * 1024
"""Bytes of one event of a stream."""
EVENTS, JSON = "text/event-stream", "application/json"
log = structlog.get_logger()

T = TypeVar("T")


class Models:
    """One job's gateway. Ends every call at once when the job's door is closed."""

    def __init__(self, deps: Deps, verified: VerifiedOrder, door: Door, use: ModelUse) -> None:
        self._deps = deps
        self._door = door
        self._use = use
        self._longest = verified.spec.run.timeout
        self._budget = Budget(use.requests, use.tokens)
        self._used = Used(deps, verified.statement.job, use.name)
        self._upstream = Upstream()
        self._turn = asyncio.Lock()
        self._readers = asyncio.Semaphore(READ_AT_ONCE)
        self._lending = AsyncExitStack()
        self._lent: Issuance | None = None
        self._looked = 0.0
        self._taken = ""
        """Why no key is asked for again: somebody took it away."""
        self._reading = 0
        self._calls: set[asyncio.Task[Any]] = set()
        self._ending: asyncio.Task[None] | None = None

    @contextmanager
    def room(self) -> Iterator[None]:
        """Have room for one more question, which is asked in the block. Raises AskedTooOften, Closed."""
        self._door.admit()
        if max(self._reading, len(self._calls)) >= AT_ONCE:
            raise AskedTooOften(1.0)
        self._reading += 1
        try:
            yield
        finally:
            self._reading -= 1

    async def chat(self, read: Callable[[], dict[str, Any]]) -> tuple[str, AsyncIterator[bytes]]:
        """Return a call's media type and its answer's pieces as they come, once there is an answer. `read` returns the checked question.

        Raises what `read` raises, NoAnswer, Denied, NotIssued, Closed, AskedTooOften, or RetryLater.
        """
        async with self._readers:
            # In a thread: a long question takes a while to be read, and this loop serves every job of the worker.
            question = await asyncio.to_thread(lambda: Question.of(read()))
        try:
            model = self._allowing(question.model)
            self._must_have_budget()
            item = await self._key(model)
            self._must_have_budget()
            headers = headers_of(model, item.fields)
        except (NoAnswer, NotIssued) as error:
            outcome = error.outcome if isinstance(error, NoAnswer) else "denied"
            self._used.note(question.model, outcome, Usage())
            raise
        self._budget = self._budget.asking()
        call = Call(question)
        asking = self._upstream.asking("POST", f"{model.url.rstrip('/')}/chat/completions", headers=headers, body=question.body)
        making = self._started(self._make(call, asking, item, seconds=self._seconds(model, item)))
        making.add_done_callback(lambda _: self._over(call, making))
        return await call.head, call.pieces(making)

    async def models(self) -> list[dict[str, Any]]:
        """Return those of the upstream's models that this job may use, as OpenAI lists them. Raises as `chat` does."""
        model = self._definition()
        listing = self._started(self._listed(model, await self._key(model)))
        await asyncio.wait({listing})
        if listing.cancelled():
            raise Closed(CLOSED)
        return listing.result()

    async def settled(self) -> None:
        """Return once no call is on its way and no key is kept; the door must have been closed."""
        if self._ending:
            await self._ending
        await self._used.settled()
        await self._drop()
        await self._upstream.close()

    def unrecorded(self) -> tuple[Event, ...]:
        """Return what the ledger has not got yet of the model's use."""
        return self._used.unrecorded()

    def _started(self, doing: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Do something until the door is closed at the latest."""
        if self._ending is None:
            self._ending = asyncio.create_task(self._until_closed())
        task = asyncio.create_task(doing)
        if self._ending.done():
            task.cancel()
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return task

    async def _until_closed(self) -> None:
        await self._door.closing()
        while self._calls:
            for call in self._calls:
                call.cancel()
            await asyncio.wait(self._calls)

    def _definition(self) -> ModelDef:
        model = self._deps.config.current().catalog.models.get(self._use.name)
        if model is None:
            message = f"the catalog has no model {self._use.name} any more"
            raise NoAnswer(message, status=404, code="model_not_found", outcome="not_allowed", again=False)
        return model

    def _allowing(self, name: str) -> ModelDef:
        model = self._definition()
        if not model.allows(name):
            message = f"this job may not use the model {name[:128]!r}; it may use {', '.join(model.allow)}"
            raise NoAnswer(message, status=403, code="model_not_allowed", outcome="not_allowed", again=False)
        return model

    def _must_have_budget(self) -> None:
        over = self._budget.over
        if over:
            raise _over_budget(over, self._budget)

    def _seconds(self, model: ModelDef, item: Issuance) -> float:
        """Return how long a call may take: no call outlives the grant of its key."""
        return min(float(model.timeout), item.left(now=self._deps.now(), ticks=self._deps.ticks()))

    async def _key(self, model: ModelDef) -> Issuance:
        """Return the key, lent anew where it was not, or its grant is over. Raises NoAnswer where people are to answer first."""
        async with self._turn:
            if self._lent and await self._still_stands(self._lent):
                return self._lent
            await self._drop()
            if self._taken:
                raise NotIssued(self._taken)
            found = await self._lending.enter_async_context(
                self._door.lent(self._wanted(model), used=f"model {self._use.name}", wait=WAITS)
            )
            if isinstance(found, Pending):
                message = f"the model's key waits for approval at tier {found.tier}: request {found.request_id}"
                raise NoAnswer(message, status=503, code="waiting_for_approval", outcome="denied", wait="5")
            self._lent, self._looked = found, self._deps.ticks()
            self._used.uses(found.credential.id)
            return found

    async def _still_stands(self, item: Issuance) -> bool:
        if item.left(now=self._deps.now(), ticks=self._deps.ticks()) < 1:
            return False
        if self._deps.ticks() - self._looked < LOOK_AGAIN:
            return True
        if await self._door.taken(item):
            self._taken = "the model's key was taken away from this job"
            return False
        self._looked = self._deps.ticks()
        return await self._door.stands(item)

    async def _drop(self) -> None:
        """Give the key back where it is still there; what its keeper has ended is gone already."""
        self._lent = None
        lending, self._lending = self._lending, AsyncExitStack()
        with suppress(NotFound, Closed):
            await lending.aclose()

    def _wanted(self, model: ModelDef) -> Access:
        access = access_of(self._use, self._deps.config.current().catalog)
        if access is None:
            message = f"the catalog does not offer {model.uses.action} on {model.uses.resource} any more"
            raise NoAnswer(message, status=404, code="model_not_found", outcome="not_allowed", again=False)
        return access.model_copy(update={"ttl": max(1, min(access.ttl, self._longest))})

    async def _listed(self, model: ModelDef, item: Issuance) -> list[dict[str, Any]]:
        url, redactor, headers = f"{model.url.rstrip('/')}/models", _redactor(item), headers_of(model, item.fields)
        try:
            async with asyncio.timeout(self._seconds(model, item)), self._upstream.asking("GET", url, headers=headers) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise await refusal(answer, redactor)
                found = await asyncio.to_thread(_object, redactor.feed(await whole(answer)) + redactor.flush())
        except TimeoutError:
            raise _too_slow() from None
        listed = found.get("data")
        return [one for one in listed if isinstance(one, dict) and model.allows(str(one.get("id")))] if isinstance(listed, list) else []

    async def _make(self, call: Call, asking: Any, item: Issuance, *, seconds: float) -> None:
        """Make a call to its end, whatever that is: nothing is raised but what cancels it."""
        try:
            async with asyncio.timeout(seconds), asking as answer:
                await self._passed(call, answer, _redactor(item))
            call.end()
        except NoAnswer as error:
            if error.code == UNREACHABLE:
                call.usage = Usage()
            call.end(error)
        except TimeoutError:
            call.end(_too_slow())
        except Exception as error:  # noqa: BLE001 - its text may hold the request, and with it the key
            log.error("a model's call failed unexpectedly", kind=type(error).__name__)  # noqa: TRY400 - for the same reason without a traceback
            call.end(NoAnswer("unexpected error; the worker's log names its kind", status=502, code="upstream_failed", outcome="failed"))

    async def _passed(self, call: Call, answer: httpx.Response, redactor: Redactor) -> None:
        """Pass an answer on, counted and without the key."""
        if answer.status_code != httpx.codes.OK:
            call.usage = Usage()
            raise await refusal(answer, redactor)
        if answer.headers.get("content-type", "").partition(";")[0].strip().lower() == EVENTS:
            must_be_plain(answer)
            await self._streamed(call, answer, redactor)
            return
        content = await whole(answer)
        # In a thread: a long answer takes a while to be read, and this one serves every job of the worker.
        call.usage, scrubbed = await asyncio.to_thread(_read, content, redactor, prompt=call.question.prompt)
        call.outcome = "answered"
        call.begin(JSON)
        await call.pass_on(scrubbed)

    async def _streamed(self, call: Call, answer: httpx.Response, redactor: Redactor) -> None:
        metered, size = Metered(prompt=call.question.prompt, told=call.question.told), 0
        call.begin(EVENTS)
        async for chunk in answer.aiter_raw():
            size += len(chunk)
            passed = redactor.feed(metered.feed(chunk))
            call.usage = metered.usage
            if metered.done:
                break
            if size > MOST_STREAMED or metered.held > MOST_HELD:
                raise too_large()
            if call.usage.tokens > self._budget.tokens_left:
                raise _over_budget("tokens", self._budget)
            if passed:
                await call.pass_on(passed)
        else:
            passed = redactor.feed(metered.flush())
        # Before its end is passed on: a client that has it goes away at once.
        call.outcome = "answered" if metered.done else "cut"
        await call.pass_on(passed + redactor.flush())

    def _over(self, call: Call, making: asyncio.Task[None]) -> None:
        """Count a call that has ended, by itself or not."""
        if making.cancelled():
            call.end(NoAnswer(CLOSED, status=410, code="closed", outcome=call.outcome, again=False))
        self._budget = self._budget.counting(call.usage)
        self._used.note(call.question.model, call.outcome, call.usage)


@asynccontextmanager
async def thinking(models: Models | None, door: Door) -> AsyncIterator[None]:
    """Have a job's model at hand for the length of a block; then no call is on its way any more."""
    try:
        yield
    finally:
        door.close()
        if models:
            await models.settled()


def _redactor(item: Issuance) -> Redactor:
    return Redactor(texts_of(secrets_of(item.fields)))


def _object(content: bytes) -> dict[str, Any]:
    try:
        # Of text in UTF-8 alone: in another encoding nobody would find the key.
        found = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise no_json() from None
    if not isinstance(found, dict):
        raise no_json()
    return found


def _read(content: bytes, redactor: Redactor, *, prompt: int) -> tuple[Usage, bytes]:
    """Return what a whole answer took, and the answer without the key. Raises NoAnswer."""
    return whole_usage(_object(content), prompt=prompt), redactor.feed(content) + redactor.flush()


def _too_slow() -> NoAnswer:
    return NoAnswer("the call took longer than it may", status=504, code="upstream_timeout", outcome="cut")


def _over_budget(which: str, budget: Budget) -> NoAnswer:
    most = budget.requests if which == "requests" else budget.tokens
    message = f"this job's budget of {most:,} {which} of its model is over"
    return NoAnswer(message, status=429, code=f"{which}_budget_exceeded", outcome="over_budget", again=False)
