"""The one stream of an open page: that something changed, what a job wrote, and that the page is alive. Tells no content beside the output."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Annotated
from urllib.parse import urlencode

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from console.api.context import Console, TheConsole
from console.api.events import MAX_LISTENERS, TooManyListeners
from console.api.lists import job_for
from console.pages.routing import PageRoute
from console.pages.visitors import NotVisiting, TheVisitor, Visitor, visitor_of
from console.pages.wording import output
from justenough.errors import RetryLater
from justenough.views import EntryView

BEAT = 5.0
"""Seconds without news after which a page hears that it is still alive, and its session is looked at again."""
LOGS_EVERY = 0.5
"""Seconds between two looks at a job's output."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


def stream(console: Console, **query: object) -> str:
    """Return the address of a page's stream. Ask for it before the page reads anything: it tells what comes after that moment."""
    return f"/live?{urlencode({'after': console.deps.store.head().position, **query})}"


async def _room(console: TheConsole) -> None:
    if console.feed.listeners >= MAX_LISTENERS:
        raise TooManyListeners(f"{MAX_LISTENERS:,} streams are open, and no more can be; this page is not live until some have ended")


async def _readable(console: TheConsole, visitor: TheVisitor, job: Annotated[str | None, Query(max_length=64)] = None) -> str | None:
    return (await to_thread.run_sync(job_for, console.deps.store, visitor.caller, job)).id if job else None


@router.get("/live", response_class=EventSourceResponse, dependencies=[Depends(_room)])
async def live(
    request: Request,
    console: TheConsole,
    visitor: TheVisitor,
    job: Annotated[str | None, Depends(_readable)],
    after: Annotated[int, Query(ge=0, le=2**53, description="The position that the page was made at")],
    topics: Annotated[str, Query(max_length=200, description="First words of types, by commas; none for all")] = "",
    log: Annotated[int | None, Query(ge=-1, le=2**53, description="The last chunk of output that the page has")] = None,
    last_event_id: Annotated[str, Header(alias="Last-Event-ID", pattern="^[0-9]{0,16}$")] = "",
) -> AsyncIterator[ServerSentEvent]:
    """Tell a page what it should look at again. Ends with `over` when its session does."""
    wanted = frozenset(filter(None, topics.split(",")))
    since = int(last_event_id or after)
    async with aclosing(_told(request, console, visitor, since, job=job, topics=wanted, log=log)) as told:
        async for each in told:
            yield each


async def _told(
    request: Request, console: Console, visitor: Visitor, since: int, *, job: str | None, topics: frozenset[str], log: int | None
) -> AsyncGenerator[ServerSentEvent, None]:
    checked = told = time.monotonic()
    yield ServerSentEvent(event="beat", data="")
    wait = BEAT if log is None else LOGS_EVERY
    async with aclosing(console.feed.after(since, job=job, wait=wait)) as batches:
        async for entries in batches:
            now = time.monotonic()
            if now - checked >= BEAT:
                checked = now
                if not await _still(request, visitor):
                    yield ServerSentEvent(event="over", data="")
                    return
            said = [*await _changed(console, visitor, entries, topics)]
            if log is not None and job is not None:
                chunks = await to_thread.run_sync(console.deps.store.logs, job, log)
                said += [ServerSentEvent(event="log", data={"seq": chunk.seq, "text": output(chunk.text)}) for chunk in chunks]
                log = chunks[-1].seq if chunks else log
            if not said and now - told >= BEAT:
                said = [ServerSentEvent(event="beat", data="")]
            for each in said:
                told = now
                yield each


async def _changed(console: Console, visitor: Visitor, entries: Sequence[EntryView], topics: frozenset[str]) -> Sequence[ServerSentEvent]:
    """Return one event for all that concerns the page: it looks at everything of its own again anyway."""
    mine = [entry for entry in entries if not topics or entry.type.partition(".")[0] in topics]
    for entry in reversed(mine):
        if visitor.caller.reads_all or await to_thread.run_sync(console.owners.readable, visitor.caller, entry.job):
            return (ServerSentEvent(event="change", id=str(entry.position), data={"type": entry.type, "job": entry.job}),)
    return ()


async def _still(request: Request, visitor: Visitor) -> bool:
    try:
        again = await visitor_of(request)
    except NotVisiting:
        return False
    except RetryLater:
        # Vault or the store is away for a moment: nothing says that the session has ended.
        return True
    return again.caller.person == visitor.caller.person
