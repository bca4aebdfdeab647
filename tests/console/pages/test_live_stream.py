"""The event stream of an open page: its events, for whom, and when it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from console.pages import live_stream
from console.pages.regions import AUTO_REFRESH_HEADER
from tests.console.pages.conftest import LogIn
from tests.console.pages.plain_browser import SAME, Browser, Site
from tests.console.served_console import Served

pytestmark = pytest.mark.servers

Event = tuple[str, Any]


@asynccontextmanager
async def open_page(who: Browser, address: str) -> AsyncIterator[AsyncIterator[Event]]:
    """Yield the events of a stream as (name, data), in order."""
    async with who.http.stream("GET", address, headers=SAME, timeout=30) as answer:
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8"), answer.headers
        yield _events(answer)


async def _events(answer: httpx.Response) -> AsyncIterator[Event]:
    name = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


async def next_change(events: AsyncIterator[Event]) -> Any:
    """Return the data of the next change event, skipping heartbeats and the console's own checkpoints of the ledger."""
    async for name, data in events:
        if name == "change" and data["type"] != "ledger.checkpointed":
            return data
    return None


def stream_address(site: Site, **query: object) -> str:
    return str(
        httpx.URL("/live", params={"after": site.store.ledger.head().position, **{name: str(value) for name, value in query.items()}})
    )


async def test_a_page_gets_heartbeats_and_events_of_its_topics(site: Site, served: Served, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    async with open_page(lead, stream_address(site, topics="approval")) as events:
        assert (await anext(events))[0] == "beat"
        request = await served.launch_and_request()
        assert await next_change(events) == {"type": "approval.opened", "job": request["job_id"]}


async def test_events_during_rendering_are_not_missed(site: Site, served: Served, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    before = stream_address(site)
    job = await served.launch()
    async with open_page(lead, before) as events:
        assert await next_change(events) == {"type": "job.submitted", "job": job["id"]}


async def test_a_launcher_gets_events_of_their_own_jobs_only(site: Site, served: Served, logged_in: LogIn) -> None:
    mallory, ops = await logged_in("mallory"), await logged_in("ops")
    begin = stream_address(site)
    theirs = await served.launch()
    async with open_page(ops, begin) as events:
        assert (await next_change(events))["job"] == theirs["id"]
    async with open_page(mallory, begin) as events:
        # A heartbeat comes after BEAT seconds without an event.
        assert [(await anext(events))[0], (await anext(events))[0]] == ["beat", "beat"]
    refused = await mallory.open(stream_address(site, job=theirs["id"]))
    assert refused.status_code == 404


async def test_a_page_that_missed_much_is_refreshed_once_and_reads_none_of_it(
    site: Site, served: Served, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    lead, begin, missed = await logged_in("lead"), stream_address(site), await served.launch()
    monkeypatch.setattr(live_stream, "MAX_REPLAYED_ENTRIES", 0)
    async with open_page(lead, begin) as events:
        assert [await anext(events), await anext(events)] == [("beat", {}), ("change", {})]
        job = await served.launch()
        assert (await next_change(events))["job"] == job["id"] != missed["id"]


async def test_output_is_streamed_as_it_arrives_and_only_once(site: Site, served: Served, logged_in: LogIn) -> None:
    ops = await logged_in("ops")
    job = (await served.launch())["id"]
    site.store.logs.append(job, 0, "before\n", site.clock())
    async with open_page(ops, stream_address(site, job=job, log=0)) as events:
        # A right-to-left override, and a control that would clear a terminal.
        site.store.logs.append(job, 1, "<b>now</b> \u202edead\x1b[2J\n", site.clock())
        async for name, data in events:
            if name == "log":
                assert data["seq"] == 1
                assert not {"\u202e", "\x1b"} & set(data["text"]), "what cannot be seen is written out"
                assert data["text"].startswith("<b>now</b> ")
                assert data["text"].endswith("\n")
                break


async def test_a_stream_ends_with_its_session(site: Site, logged_in: LogIn) -> None:
    lead = await logged_in("lead")
    async with open_page(lead, stream_address(site)) as events:
        assert (await anext(events))[0] == "beat"
        await site.console.sessions.end(await site.console.sessions.session_of(lead.cookie))
        assert await asyncio.wait_for(next_change(events), 30) is None


async def test_automatic_refreshes_do_not_extend_a_session(site: Site, logged_in: LogIn) -> None:
    lead, busy = await logged_in("lead"), await logged_in("lead")
    for status in (200, 303):
        site.clock.forward(minutes=20)
        assert (await busy.open("/sessions")).status_code == 200
        assert (await lead.open("/sessions", headers={**SAME, AUTO_REFRESH_HEADER: "1"})).status_code == status


async def test_a_page_over_the_limit_of_listeners_learns_that_it_does_not_update(
    site: Site, logged_in: LogIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_stream, "MAX_LISTENERS", 0)
    refused = await (await logged_in("lead")).open(stream_address(site))
    assert (refused.status_code, "this page does not update by itself" in refused.text) == (503, True)


@pytest.mark.parametrize("query", ["", "after=x", "after=-1", "after=1&log=x", "after=1&topics=" + "a" * 300])
async def test_an_invalid_stream_request_is_rejected(logged_in: LogIn, query: str) -> None:
    lead = await logged_in("lead")
    assert (await lead.open(f"/live?{query}")).status_code == 422
