"""The ledger as a stream of server-sent events, each a CloudEvent: for one job or for every job that the caller may read."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query, Response

from console.api.dependencies import AuthenticatedRoute, Member
from console.auth.authorization import Caller
from console.events.live_feed import MAX_LISTENERS, TooManyListeners
from console.events.server_sent_events import EventStream
from console.http.dependencies import POSITION_PATTERN, TheConsole
from console.services.console import Console
from console.services.visibility import job_for, parse_position

KEEP_ALIVE_INTERVAL_S = 15.0
"""After this long without an event a comment is sent, because proxies close silent connections after about a minute."""
RETRY_MS = 2_000
BEGIN_HEADER = "Last-Event-ID"
"""Response header with the position where the stream begins, so that a client without any event can resume there."""

router = APIRouter(route_class=AuthenticatedRoute, tags=["events"])


async def _parse_last_event_id(
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            max_length=20,
            description="The last position that the client has seen",
            json_schema_extra={"pattern": f"^$|{POSITION_PATTERN}"},
        ),
    ] = None,
) -> int | None:
    return parse_position(last_event_id, path="header.Last-Event-ID") if last_event_id else None


async def _readable_job_id(job: str, console: TheConsole, caller: Member) -> str:
    return (await to_thread.run_sync(job_for, console.deps.store, caller, job)).id


# These checks are dependencies, because a stream starts its response before the function's first line runs.
Since = Annotated[int | None, Depends(_parse_last_event_id)]
ReadableJob = Annotated[str, Depends(_readable_job_id)]


@router.get("/events", operation_id="follow_events", response_class=EventStream, status_code=200)
async def all_events(
    console: TheConsole,
    caller: Member,
    since: Since,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="The last position seen; by default, begin with the next event")] = None,
) -> Response:
    """Follow every job that the caller may read. The stream ends when the token expires."""
    return await _open_stream(console, caller, after if since is None else since, job=None)


@router.get("/jobs/{job}/events", operation_id="follow_job", response_class=EventStream, status_code=200)
async def job_events(job: ReadableJob, console: TheConsole, caller: Member, since: Since) -> Response:
    """Follow one job from its first entry, or from the last one seen. The stream ends when the token expires."""
    return await _open_stream(console, caller, since or 0, job=job)


async def _open_stream(console: Console, caller: Caller, since: int | None, *, job: str | None) -> EventStream:
    if console.feed.listeners >= MAX_LISTENERS:
        raise TooManyListeners(f"{MAX_LISTENERS:,} streams are open, which is the maximum; poll the lists until some streams have ended")
    newest = await console.feed.newest_position()
    begin = newest if since is None else min(since, newest)
    # Last, so that nothing comes between this and the stream's admission, which counts it.
    console.quotas.require_stream(console.stream_authorization.count_streams(caller.person.id))
    return EventStream(
        _event_blocks(console, caller, begin, job=job, ahead=since is not None and since > newest),
        admission=lambda end: console.stream_authorization.admit(caller, end),
        headers={BEGIN_HEADER: str(begin)},
    )


async def _event_blocks(console: Console, caller: Caller, begin: int, *, job: str | None, ahead: bool) -> AsyncGenerator[bytes, None]:
    # Sent immediately, so that the client and all proxies see that the stream is open.
    yield f": {'the ledger ends before that position; continuing ' if ahead else ''}after {begin}\n\n".encode()
    hint: bytes = f"retry: {RETRY_MS}\n".encode()
    sent_at = time.monotonic()

    def seconds_left() -> float:
        # Not a new interval after each entry that this caller may not read: proxies end a stream that is silent for too long.
        return max(0.0, sent_at + KEEP_ALIVE_INTERVAL_S - time.monotonic())

    # Closed immediately, so that the feed counts only current listeners.
    async with aclosing(console.feed.follow(begin, job=job, wait=seconds_left)) as batches:
        async for entries in batches:
            if readable := await console.job_owners.readable_entries(caller, entries):
                # Part of the first event, because some clients treat a block without data as an event.
                yield hint + console.sse_encoder.encode(readable)
                hint, sent_at = b"", time.monotonic()
            elif time.monotonic() - sent_at >= KEEP_ALIVE_INTERVAL_S:
                yield b": keep-alive\n\n"
                sent_at = time.monotonic()
