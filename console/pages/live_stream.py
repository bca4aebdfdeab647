"""GET /live: the event stream of an open page. It sends change notices, job output and heartbeats; no other content."""

from __future__ import annotations

import json
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Annotated, Any
from urllib.parse import urlencode

import anyio
from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request

from console.auth.page_sessions import NoSession
from console.events.live_feed import MAX_LISTENERS, PRELOADED_ENTRIES, TooManyListeners
from console.events.server_sent_events import EventStream
from console.http.dependencies import TheConsole
from console.pages.page_user import PageUser, ThePageUser
from console.pages.routing import PageRoute
from console.presentation.terminal_text import output_text
from console.services.console import Console
from console.services.visibility import job_for
from justenough.domain.core.errors import RetryLater

BEAT_INTERVAL_S = 5.0
"""Seconds between heartbeats on a quiet stream, and between checks of the session."""
LOG_POLL_INTERVAL_S = 0.5
"""Seconds between reads of a job's output."""
MAX_REPLAYED_ENTRIES = PRELOADED_ENTRIES
"""A page that missed more entries than this is refreshed without reading them. A tab that was hidden for days would read all of them."""
REFRESH_COST_S = 0.02
"""Processor seconds that one refresh of a page takes: 0.011 to 0.025 were measured (decision 57)."""
REFRESH_SHARE = 0.6
"""The share of one processor that the refreshes of all open pages may take."""

router = APIRouter(route_class=PageRoute, include_in_schema=False)


def stream_url(console: Console, **query: object) -> str:
    """Return the address of a page's stream. Call it before the page reads anything: the stream starts at this moment."""
    return f"/live?{urlencode({'after': console.deps.store.ledger.head().position, **query})}"


@router.get("/live", response_class=EventStream)
async def live(
    request: Request,
    console: TheConsole,
    visitor: ThePageUser,
    after: Annotated[int, Query(ge=0, le=2**53, description="Ledger position when the page was rendered")],
    topics: Annotated[str, Query(max_length=200, description="Comma-separated first words of event types; empty for all")] = "",
    log: Annotated[int | None, Query(ge=-1, le=2**53, description="Sequence number of the last output chunk on the page")] = None,
    job: Annotated[str | None, Query(max_length=64)] = None,
    last_event_id: Annotated[str, Header(alias="Last-Event-ID", pattern="^[0-9]{0,16}$")] = "",
) -> EventStream:
    """Stream change notices to a page. Ends with the session; the page is then redirected to the login."""
    job = (await to_thread.run_sync(job_for, console.deps.store, visitor.caller, job)).id if job else None
    if console.feed.listeners >= MAX_LISTENERS:
        raise TooManyListeners(f"the limit of {MAX_LISTENERS:,} live pages is reached; this page does not update by itself")
    console.quotas.require_stream(console.stream_authorization.count_streams(visitor.caller.person.id))
    concerned, since = frozenset(filter(None, topics.split(","))), int(last_event_id or after)
    blocks = _page_blocks(console, visitor, job=job, topics=concerned, since=since, log=log)
    return EventStream(blocks, admission=partial(_admission, request, console, visitor))


async def _page_blocks(
    console: Console, visitor: PageUser, *, job: str | None, topics: frozenset[str], since: int, log: int | None
) -> AsyncGenerator[bytes, None]:
    yield _event_block("beat", {})
    newest = await console.feed.newest_position()
    if job is None and newest - since > MAX_REPLAYED_ENTRIES:
        since = newest
        yield _event_block("change", {}, position=newest)
    last_event, last, noticed_at = time.monotonic(), None, 0.0
    # When the next change notice is due (monotonic); None if nothing has changed.
    due: float | None = None
    longest_wait_s = BEAT_INTERVAL_S if log is None else LOG_POLL_INTERVAL_S

    def wait_s() -> float:
        return longest_wait_s if due is None else min(longest_wait_s, max(0.0, due - time.monotonic()))

    async with aclosing(console.feed.follow(since, job=job, wait=wait_s)) as batches:
        async for entries in batches:
            # One event for all entries that concern the page, because it refreshes as a whole anyway.
            concerned = [entry for entry in entries if not topics or entry.type.partition(".")[0] in topics]
            readable = await console.job_owners.readable_entries(visitor.caller, concerned)
            last, block, now = readable[-1] if readable else last, b"", time.monotonic()
            if last is not None:
                if due is None:
                    due = next_refresh(now, after=noticed_at, pages=console.feed.listeners)
                if now >= due:
                    block = _event_block("change", {"type": last.type, "job": last.job}, position=last.position)
                    noticed_at, due, last = now, None, None
            if log is not None and job is not None:
                chunks = await to_thread.run_sync(console.deps.store.logs.chunks, job, log)
                block += b"".join(_event_block("log", {"seq": chunk.seq, "text": output_text(chunk.text)}) for chunk in chunks)
                log = chunks[-1].seq if chunks else log
            if block or time.monotonic() - last_event >= BEAT_INTERVAL_S:
                yield block or _event_block("beat", {})
                last_event = time.monotonic()


def next_refresh(now: float, *, after: float, pages: int) -> float:
    """Return when to refresh a page that has just changed, given the number of open pages and the time of its last notice, `after`
    (monotonic seconds).

    An event concerns many pages at once. Pages that were not refreshed recently are spread over the interval, so that other requests are
    served in between.
    """
    interval = min_refresh_interval_s(pages)
    return after + interval if after + interval > now else now + random.uniform(0, interval)  # noqa: S311 - not for security


def min_refresh_interval_s(pages: int) -> float:
    """Return the minimum seconds between two refreshes of a page, given the number of open pages."""
    return pages * REFRESH_COST_S / REFRESH_SHARE


@asynccontextmanager
async def _admission(request: Request, console: Console, visitor: PageUser, end_stream: Callable[[], None]) -> AsyncIterator[None]:
    """Call `end_stream` once the session is over or the person has lost a right they had at the start."""
    async with console.stream_authorization.admit(visitor.caller, end_stream), anyio.create_task_group() as group:
        group.start_soon(_watch_session, console, request.cookies.get(console.cookies.session), end_stream)
        yield
        group.cancel_scope.cancel()


async def _watch_session(console: Console, cookie: str | None, end_stream: Callable[[], None]) -> None:
    while True:
        await anyio.sleep(BEAT_INTERVAL_S)
        try:
            await console.sessions.session_of(cookie, by_person=False)
        except NoSession:
            end_stream()
            return
        except RetryLater:
            # Vault or the store is unavailable for a moment; that does not mean the session has ended.
            continue


def _event_block(event: str, data: dict[str, Any], *, position: int | None = None) -> bytes:
    event_id = f"id: {position}\n" if position is not None else ""
    return f"{event_id}event: {event}\ndata: {json.dumps(data)}\n\n".encode()
