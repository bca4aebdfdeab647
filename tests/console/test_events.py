"""The ledger as a stream: from where one left off, only what one may read, and no longer than the token holds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx

from tests.console.support import Served


async def followed(served: Served, path: str, who: str, **headers: str) -> AsyncGenerator[dict[str, Any], None]:
    async with served.http.stream("GET", f"/api/v1{path}", headers=served.people[who].bearer | headers) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        found: dict[str, Any] = {}
        async for line in answer.aiter_lines():
            name, _, value = line.partition(": ")
            if line:
                found[name] = json.loads(value) if name == "data" else value
            elif "data" in found:
                yield found
                found = {}


async def test_a_job_is_followed_from_its_first_entry_and_live(served: Served) -> None:
    job = (await served.launched())["id"]
    async with aclosing(followed(served, f"/jobs/{job}/events", "ops")) as stream, asyncio.timeout(10):
        first = await anext(stream)
        assert first["event"] == "job.submitted"
        served.issue(job)
        second = await anext(stream)
    assert second["data"]["type"] == "dev.justenough.credential.issued.v1"
    assert (second["data"]["specversion"], second["data"]["subject"]) == ("1.0", job)
    async with aclosing(followed(served, f"/jobs/{job}/events", "ops", **{"Last-Event-ID": first["id"]})) as stream, asyncio.timeout(10):
        assert (await anext(stream))["id"] == second["id"]


async def test_a_launcher_follows_their_own_jobs_alone(served: Served) -> None:
    job = (await served.launched())["id"]
    assert (await served.get(f"/jobs/{job}/events", "ops2")).status_code == 404
    before = str(served.store.head().position)
    async with (
        aclosing(followed(served, "/events", "ops2", **{"Last-Event-ID": before})) as theirs,
        aclosing(followed(served, "/events", "auditor", **{"Last-Event-ID": before})) as everyones,
        asyncio.timeout(15),
    ):
        served.issue(job)
        own = (await served.post("/jobs", "ops2", served.people["ops2"].order())).json()["id"]
        assert (await anext(theirs))["data"]["subject"] == own
        assert [(await anext(everyones))["data"]["subject"] for _ in range(2)] == [job, own]


async def test_the_stream_of_everything_begins_now(served: Served) -> None:
    await served.launched()
    async with aclosing(followed(served, "/events", "auditor")) as stream, asyncio.timeout(10):
        coming = asyncio.ensure_future(anext(stream))
        job = None
        while not coming.done():
            job = (await served.launched())["id"] if job is None else job
            served.issue(job)
            await asyncio.wait([coming], timeout=0.1)
        assert coming.result()["data"]["subject"] == job


async def test_a_stream_ends_when_its_token_does(served: Served, monkeypatch: Any) -> None:
    monkeypatch.setattr("console.api.passes.CHECK_EVERY", 0.1)
    monkeypatch.setattr(served.console.passes, "_now", lambda: time.time() + 16 * 60)
    async with aclosing(followed(served, "/events", "auditor")) as stream, asyncio.timeout(10):
        assert [entry async for entry in stream] == []


async def test_a_stream_ends_when_its_person_loses_their_group(served: Served, admin: httpx.Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("console.api.passes.CHECK_EVERY", 0.1)
    monkeypatch.setattr("console.people.FRESH", 0.1)
    group, person = "identity/group/name/auditors", served.people["auditor"].id
    members = (await asyncio.to_thread(admin.get, group)).json()["data"]["member_entity_ids"]

    async def become(*who: str) -> None:
        await asyncio.to_thread(lambda: admin.post(group, json={"member_entity_ids": who}).raise_for_status())

    async with aclosing(followed(served, "/events", "auditor", **{"Last-Event-ID": "0"})) as stream, asyncio.timeout(20):
        assert await anext(stream)
        try:
            await become(*(one for one in members if one != person))
            async for _ in stream:
                pass
            assert (await served.get("/events", "auditor")).status_code == 403
        finally:
            await become(*members)
        # The console believes what it read of a person for a while; who comes next must find the auditor as before.
        while (await served.get("/jobs", "auditor")).status_code != 200:
            pass


async def test_a_position_that_is_none_is_refused(served: Served) -> None:
    answer = await served.get("/events", "auditor", headers={"Last-Event-ID": "yesterday"})
    assert answer.status_code == 422


async def test_nobody_looks_for_news_when_nobody_listens(served: Served) -> None:
    job = (await served.launched())["id"]
    async with aclosing(followed(served, f"/jobs/{job}/events", "ops")) as stream, asyncio.timeout(10):
        await anext(stream)
        looking = served.console.feed._task
    assert looking is not None
    async with asyncio.timeout(10):
        await looking
