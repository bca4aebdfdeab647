"""The ledger as server-sent events, each a CloudEvent: for one job or for every job that the caller may read."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from console.api.context import AuthenticatedRoute, Console, Member, TheConsole
from console.api.jobs import position
from console.api.lists import POSITION, job_for
from console.api.rights import Caller
from justenough.statements import rfc3339
from justenough.views import EntryView

CHECK_EVERY = 5.0
"""Seconds after which a stream looks again whether its caller may still read."""

router = APIRouter(route_class=AuthenticatedRoute, tags=["events"])


async def _since(
    last_event_id: Annotated[
        str | None,
        Header(alias="Last-Event-ID", max_length=20, description="The last position seen", json_schema_extra={"pattern": f"^$|{POSITION}"}),
    ] = None,
) -> int | None:
    return position(last_event_id, where="header.Last-Event-ID") if last_event_id else None


async def _readable(job: str, console: TheConsole, caller: Member) -> str:
    return (await to_thread.run_sync(job_for, console.deps.store, caller, job)).id


# Dependencies, because a stream has begun to answer before its own first line runs.
Since = Annotated[int | None, Depends(_since)]
ReadableJob = Annotated[str, Depends(_readable)]


@router.get("/events", operation_id="follow_events", response_class=EventSourceResponse)
async def all_events(
    console: TheConsole,
    caller: Member,
    since: Since,
    after: Annotated[int | None, Query(ge=0, le=2**53, description="The last position seen; without it: from now on")] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Follow every job that the caller may read. Ends when the token does."""
    async with aclosing(_followed(console, caller, after if since is None else since, job=None)) as followed:
        async for entry in followed:
            yield entry


@router.get("/jobs/{job}/events", operation_id="follow_job", response_class=EventSourceResponse)
async def job_events(job: ReadableJob, console: TheConsole, caller: Member, since: Since) -> AsyncIterator[ServerSentEvent]:
    """Follow one job from its first entry, or from the last one seen. Ends when the token does."""
    async with aclosing(_followed(console, caller, since or 0, job=job)) as followed:
        async for entry in followed:
            yield entry


def cloud_event(entry: EntryView, installation: str) -> dict[str, Any]:
    """Return a ledger entry as CloudEvents 1.0 JSON."""
    return {
        "specversion": "1.0",
        "id": entry.id,
        "source": f"/justenough/{installation}",
        "type": f"dev.justenough.{entry.type}.v1",
        "subject": entry.job,
        "time": rfc3339(entry.at),
        "datacontenttype": "application/json",
        "data": entry.data,
    }


async def _followed(console: Console, caller: Caller, since: int | None, *, job: str | None) -> AsyncGenerator[ServerSentEvent, None]:
    checked = time.monotonic()
    # Closed on the spot, so that the feed knows when nobody listens any more.
    async with aclosing(console.feed.after(since, job=job, wait=CHECK_EVERY)) as batches:
        async for entries in batches:
            if time.monotonic() - checked >= CHECK_EVERY:
                checked = time.monotonic()
                if not await _still_reads_alike(console, caller):
                    return
            for entry in entries:
                if caller.reads_all or await to_thread.run_sync(console.owners.readable, caller, entry.job):
                    yield _sent(entry, console.deps.settings.installation)


async def _still_reads_alike(console: Console, caller: Caller) -> bool:
    """Whether the token still holds and its person's groups are what they were; else the client comes back and is asked anew."""
    person = await console.people.person(caller.person.id)
    return time.time() < caller.expires and person == caller.person


def _sent(entry: EntryView, installation: str) -> ServerSentEvent:
    return ServerSentEvent(id=str(entry.position), event=entry.type, data=cloud_event(entry, installation))
