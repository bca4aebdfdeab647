"""The ledger as server-sent events, each a CloudEvent: for one job or for every job that the caller may read."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Response

from console.api.dependencies import AuthenticatedRoute, Member
from console.auth.authorization import Caller
from console.events.live_feed import MAX_LISTENERS, TooManyListeners
from console.events.sse_response import EventStream
from console.http.dependencies import TheConsole
from console.http.pagination import POSITION_PATTERN
from console.services.console import Console
from console.services.visibility import job_for, parse_position
from justenough.domain.readmodel.views import EntryView

KEEP_ALIVE_INTERVAL_S = 15.0
"""Seconds without news after which a comment tells that the stream lives: proxies give up after a minute or so."""


RETRY_MS = 2_000
"""Milliseconds after which a client should come back."""


BEGIN_HEADER = "Last-Event-ID"
"""Header that tells where a stream begins, as the client tells where it left off: who has heard nothing yet can still go on from there."""


router = APIRouter(route_class=AuthenticatedRoute, tags=["events"])


async def _parse_last_event_id(
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            max_length=20,
            description="The last position seen",
            json_schema_extra={"pattern": f"^$|{POSITION_PATTERN}"},
        ),
    ] = None,
) -> int | None:
    return parse_position(last_event_id, path="header.Last-Event-ID") if last_event_id else None


async def _readable_job_id(job: str, console: TheConsole, caller: Member) -> str:
    return (await to_thread.run_sync(job_for, console.deps.store, caller, job)).id


# Dependencies, because a stream has begun to answer before its own first line runs.
Since = Annotated[int | None, Depends(_parse_last_event_id)]


ReadableJob = Annotated[str, Depends(_readable_job_id)]


@router.get("/events", operation_id="follow_events", response_class=EventStream, status_code=200)
async def all_events(
    console: TheConsole,
    caller: Member,
    since: Since,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="The last position seen; without it: from now on")] = None,
) -> Response:
    """Follow every job that the caller may read. Ends when the token does."""
    return await _open_stream(console, caller, after if since is None else since, job=None)


@router.get("/jobs/{job}/events", operation_id="follow_job", response_class=EventStream, status_code=200)
async def job_events(job: ReadableJob, console: TheConsole, caller: Member, since: Since) -> Response:
    """Follow one job from its first entry, or from the last one seen. Ends when the token does."""
    return await _open_stream(console, caller, since or 0, job=job)


async def _open_stream(console: Console, caller: Caller, since: int | None, *, job: str | None) -> EventStream:
    if console.feed.listeners >= MAX_LISTENERS:
        raise TooManyListeners(f"{MAX_LISTENERS:,} streams are open, and no more can be; ask the lists until some have ended")
    newest = await console.feed.newest_position()
    begin = newest if since is None else min(since, newest)
    return EventStream(
        _event_blocks(console, caller, begin, job=job, ahead=since is not None and since > newest),
        admission=lambda end: console.stream_authorization.admit(caller, end),
        headers={BEGIN_HEADER: str(begin)},
    )


async def _event_blocks(console: Console, caller: Caller, begin: int, *, job: str | None, ahead: bool) -> AsyncGenerator[bytes, None]:
    # At once, so that a client and what stands between know that the stream is open.
    yield f": {'the ledger ends before that position; going on ' if ahead else ''}after {begin}\n\n".encode()
    hint: bytes = f"retry: {RETRY_MS}\n".encode()
    told = time.monotonic()
    # Closed on the spot, so that the feed knows when nobody listens any more.
    async with aclosing(console.feed.follow(begin, job=job, wait=KEEP_ALIVE_INTERVAL_S)) as batches:
        async for entries in batches:
            if theirs := await _readable_entries(console, caller, entries):
                # As a part of the first event: some clients take a block without data for an event.
                yield hint + console.sse_encoder.encode(theirs)
                hint, told = b"", time.monotonic()
            elif time.monotonic() - told >= KEEP_ALIVE_INTERVAL_S:
                yield b": keep-alive\n\n"
                told = time.monotonic()


async def _readable_entries(console: Console, caller: Caller, entries: Sequence[EntryView]) -> Sequence[EntryView]:
    if caller.can_read_all or not entries:
        return entries
    owners = await console.job_owners.owners_of((entry.job for entry in entries), position=entries[-1].position)
    return [entry for entry in entries if caller.can_read_jobs_of(owners.get(entry.job, ""))]
