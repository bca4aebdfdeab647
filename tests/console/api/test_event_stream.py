"""The ledger as a stream: it continues from a position, shows only what the caller may read, and ends with the token."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from console.api.routes import events as events_route
from console.auth.authorization import Caller
from console.events.stream_authorization import StreamAuthorization
from console.services.visibility import JobOwners
from justenough.adapters.configuration.folder import ConfigFolder
from justenough.domain.approvals.tiers import Person, Tiers
from justenough.domain.core.errors import RetryLater
from justenough.services.dependencies import utc_now
from tests.adapters.store.event_samples import job_refusal
from tests.console.served_console import SHOP, Served


async def read_events(answer: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
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


async def follow_events(served: Served, path: str, who: str, **headers: str) -> AsyncGenerator[dict[str, Any], None]:
    async with (
        served.http.stream("GET", f"/api/v1{path}", headers=served.people[who].bearer | headers) as answer,
        aclosing(read_events(answer)) as events,
    ):
        async for event in events:
            yield event


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what tells nobody when it happens."""
    async with asyncio.timeout(180):
        while not condition():  # noqa: ASYNC110 - as its docstring says
            await asyncio.sleep(0.01)


async def test_the_stream_of_a_job_starts_at_its_first_entry_and_stays_live(served: Served) -> None:
    job = (await served.launch())["id"]
    async with aclosing(follow_events(served, f"/jobs/{job}/events", "ops")) as stream, asyncio.timeout(180):
        first = await anext(stream)
        assert first["event"] == "job.submitted"
        served.issue(job)
        second = await anext(stream)
    assert second["data"]["type"] == "dev.justenough.credential.issued.v1"
    assert (second["data"]["specversion"], second["data"]["subject"]) == ("1.0", job)
    async with (
        aclosing(follow_events(served, f"/jobs/{job}/events", "ops", **{"Last-Event-ID": first["id"]})) as stream,
        asyncio.timeout(180),
    ):
        assert (await anext(stream))["id"] == second["id"]


async def test_a_launcher_can_follow_only_their_own_jobs(served: Served) -> None:
    job = (await served.launch())["id"]
    assert (await served.get(f"/jobs/{job}/events", "ops2")).status_code == 404
    before = str(served.store.ledger.head().position)
    async with (
        aclosing(follow_events(served, "/events", "ops2", **{"Last-Event-ID": before})) as theirs,
        aclosing(follow_events(served, "/events", "auditor", **{"Last-Event-ID": before})) as everyones,
        asyncio.timeout(180),
    ):
        served.issue(job)
        own = (await served.post("/jobs", "ops2", served.people["ops2"].order())).json()["id"]
        assert (await anext(theirs))["data"]["subject"] == own
        assert [(await anext(everyones))["data"]["subject"] for _ in range(2)] == [job, own]


async def test_the_stream_of_all_events_begins_with_new_events(served: Served) -> None:
    await served.launch()
    async with (
        served.http.stream("GET", "/api/v1/events", headers=served.people["auditor"].bearer) as answer,
        aclosing(read_events(answer)) as stream,
        asyncio.timeout(180),
    ):
        job = (await served.launch())["id"]
        assert (await anext(stream))["data"]["subject"] == job


async def test_a_stream_ends_when_its_token_does(served: Served, monkeypatch: Any) -> None:
    monkeypatch.setattr("console.events.stream_authorization.CHECK_INTERVAL_S", 0.1)
    monkeypatch.setattr(served.console.stream_authorization, "_now", lambda: datetime.now(UTC) + timedelta(minutes=16))
    async with aclosing(follow_events(served, "/events", "auditor")) as stream, asyncio.timeout(180):
        assert [entry async for entry in stream] == []


async def test_a_stream_ends_when_its_person_loses_their_group(served: Served, admin: httpx.Client, monkeypatch: Any) -> None:
    monkeypatch.setattr("console.events.stream_authorization.CHECK_INTERVAL_S", 0.1)
    monkeypatch.setattr("console.auth.vault_directory.CACHE_TTL_S", 0.1)
    group, person = "identity/group/name/auditors", served.people["auditor"].id
    members = (await asyncio.to_thread(admin.get, group)).json()["data"]["member_entity_ids"]

    async def become(*who: str) -> None:
        await asyncio.to_thread(lambda: admin.post(group, json={"member_entity_ids": who}).raise_for_status())

    async with aclosing(follow_events(served, "/events", "auditor", **{"Last-Event-ID": "0"})) as stream, asyncio.timeout(180):
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


async def test_an_invalid_last_event_id_is_refused(served: Served) -> None:
    answer = await served.get("/events", "auditor", headers={"Last-Event-ID": "yesterday"})
    assert answer.status_code == 422


async def test_the_console_stops_polling_for_events_when_nobody_listens(served: Served) -> None:
    job = (await served.launch())["id"]
    async with aclosing(follow_events(served, f"/jobs/{job}/events", "ops")) as stream, asyncio.timeout(180):
        await anext(stream)
        looking = served.console.feed._task
    assert looking is not None
    async with asyncio.timeout(180):
        await looking


async def test_a_stream_says_at_once_where_it_begins_and_asks_proxies_to_pass_it_on(served: Served) -> None:
    newest = served.store.ledger.head().position
    async with served.http.stream("GET", "/api/v1/events", headers=served.people["auditor"].bearer) as answer, asyncio.timeout(180):
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["cache-control"] == "no-store, no-transform"
        assert "content-length" not in answer.headers
        begin = int(answer.headers["last-event-id"])
        assert begin >= newest
        assert await anext(answer.aiter_lines()) == f": after {begin}"


async def test_a_stream_without_news_is_kept_alive(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.api.routes.events.KEEP_ALIVE_INTERVAL_S", 0.05)
    async with served.http.stream("GET", "/api/v1/events", headers=served.people["auditor"].bearer) as answer, asyncio.timeout(180):
        lines = answer.aiter_lines()
        while await anext(lines) != ": keep-alive":
            pass


async def test_entries_that_the_caller_may_not_read_do_not_put_off_the_next_keep_alive() -> None:
    waits = []

    class Feed:
        async def follow(self, _position: int, *, job: str | None, wait: Callable[[], float]) -> AsyncGenerator[tuple[str, ...], None]:
            del job
            await asyncio.sleep(0.01)
            yield ("somebody else's entry",)
            waits.append(wait())

    async def readable_entries(*_: object) -> tuple[()]:
        return ()

    console: Any = SimpleNamespace(feed=Feed(), job_owners=SimpleNamespace(readable_entries=readable_entries))
    caller: Any = None
    assert [block async for block in events_route._event_blocks(console, caller, 7, job=None, ahead=False)] == [b": after 7\n\n"]
    assert waits[0] <= events_route.KEEP_ALIVE_INTERVAL_S - 0.01


async def test_a_stream_from_a_position_beyond_the_ledger_continues_from_its_newest_entry(served: Served) -> None:
    job = (await served.launch())["id"]
    for path, who in (("/events", "auditor"), (f"/jobs/{job}/events", "ops")):
        ahead = served.people[who].bearer | {"Last-Event-ID": str(10**12)}
        async with served.http.stream("GET", f"/api/v1{path}", headers=ahead) as answer, asyncio.timeout(180):
            begin = int(answer.headers["last-event-id"])
            lines = answer.aiter_lines()
            assert await anext(lines) == f": the ledger ends before that position; continuing after {begin}"
            (served.issue if path == "/events" else served.end)(job)
            while not (line := await anext(lines)).startswith("id: "):
                pass
            assert int(line.removeprefix("id: ")) > begin


@pytest.mark.parametrize("position", ["-1", "1.5", "9" * 18, "0x1", "1 2", "\u0663"])
async def test_a_position_of_another_form_is_refused(served: Served, position: str) -> None:
    answer = await served.get("/events", "auditor", headers={"Last-Event-ID": position.encode()})
    assert answer.status_code == 422


async def test_the_first_event_sets_the_reconnection_time(served: Served) -> None:
    job = (await served.launch())["id"]
    async with aclosing(follow_events(served, f"/jobs/{job}/events", "ops")) as stream, asyncio.timeout(180):
        assert (await anext(stream))["retry"] == "2000"


async def test_listeners_over_the_consoles_limit_get_an_error_that_says_so(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.api.routes.events.MAX_LISTENERS", 0)
    answer = await served.get("/events", "auditor")
    assert answer.status_code == 503
    assert "streams are open" in answer.json()["detail"]


async def test_a_stalled_listener_is_disconnected_while_others_get_every_event(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.events.server_sent_events.STALL_TIMEOUT_S", 1.0)
    job = (await served.launch())["id"]
    # Listeners of an earlier test may not be gone yet.
    await until(lambda: served.console.feed.listeners == 0)
    where = served.http.base_url
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect((where.host, where.port))
        deaf.sendall(
            f"GET /api/v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: {served.people['auditor'].bearer['Authorization']}\r\n\r\n".encode()
        )
        before = str(served.store.ledger.head().position)
        async with aclosing(follow_events(served, "/events", "auditor", **{"Last-Event-ID": before})) as stream, asyncio.timeout(180):
            await until(lambda: served.console.feed.listeners > 0)
            heard = 0
            for number in range(40):
                large = [job_refusal("x" * 200_000, job=job, about=f"{number}-{one}") for one in range(2)]
                await asyncio.to_thread(served.store.ledger.append, large)
                heard += len([await anext(stream) for _ in large])
            await until(lambda: served.console.feed.listeners == 1)
            assert heard == 80


async def test_a_person_is_checked_once_however_many_streams_they_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.events.stream_authorization.CHECK_INTERVAL_S", 0.02)
    tiers = ConfigFolder(SHOP).current().tiers
    person = Person(id="e-auditor", name="auditor", groups=frozenset({"auditors"}))
    looks, ended = 0, []
    found: list[Person | None] = [person]
    enough = asyncio.Event()

    async def look(_: str) -> Person | None:
        nonlocal looks
        looks += 1
        if looks == 3:
            enough.set()
        return found[0]

    async def now() -> Tiers:
        return tiers

    passes = StreamAuthorization(look, now, now=utc_now)
    async with asyncio.timeout(180), AsyncExitStack() as stack:
        for number in range(100):
            caller = Caller(person=person, tiers=tiers, expires=time.time() + (900 if number else -1))
            await stack.enter_async_context(passes.admit(caller, lambda number=number: ended.append(number)))  # type: ignore[misc]
        await enough.wait()
        assert looks < 10
        assert set(ended) == {0}
        found[0] = person.model_copy(update={"groups": frozenset({"ops"})})
        await until(lambda: set(ended) == set(range(100)))


async def test_a_persons_last_known_rights_are_used_for_a_while_if_vault_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.events.stream_authorization.CHECK_INTERVAL_S", 0.02)
    monkeypatch.setattr("console.events.stream_authorization.MAX_UNCHECKED_S", 0.5)
    tiers = ConfigFolder(SHOP).current().tiers
    caller = Caller(person=Person(id="e-a", name="a", groups=frozenset({"auditors"})), tiers=tiers, expires=time.time() + 900)
    over = asyncio.Event()

    async def away(_: str) -> Person | None:
        raise RetryLater("Vault is away")

    async def now() -> Tiers:
        return tiers

    began = time.monotonic()
    async with asyncio.timeout(180), StreamAuthorization(away, now, now=utc_now).admit(caller, over.set):
        await over.wait()
    assert time.monotonic() - began > 0.5


async def test_a_stream_ends_if_its_listeners_rights_cannot_be_checked_for_whatever_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("console.events.stream_authorization.CHECK_INTERVAL_S", 0.02)
    monkeypatch.setattr("console.events.stream_authorization.MAX_UNCHECKED_S", 0.1)
    person = Person(id="e-a", name="a", groups=frozenset({"auditors"}))
    caller = Caller(person=person, tiers=ConfigFolder(SHOP).current().tiers, expires=time.time() + 900)
    over = asyncio.Event()

    async def look(_: str) -> Person | None:
        return person

    async def unreadable() -> Tiers:
        raise OSError("the disk is broken")

    async with asyncio.timeout(30), StreamAuthorization(look, unreadable, now=utc_now).admit(caller, over.set):
        await over.wait()


async def test_the_launcher_of_a_job_is_looked_up_once_for_all_listeners(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    job = (await served.launch())["id"]
    asked: list[frozenset[str]] = []
    owners = JobOwners(served.store)
    original = served.store.jobs.requesters

    def requesters(jobs: frozenset[str]) -> Mapping[str, str]:
        asked.append(jobs)
        return original(jobs)

    monkeypatch.setattr(served.store.jobs, "requesters", requesters)
    newest = served.store.ledger.head().position
    for _ in range(3):
        found = await asyncio.gather(*(owners.owners_of([job, "j-dev-unknown"], position=newest) for _ in range(50)))
        assert all(one == {job: served.people["ops"].id} for one in found)
    assert len(asked) == 1
    # A job that was unknown may have come with later entries.
    await owners.owners_of([job, "j-dev-unknown"], position=newest + 1)
    assert asked[1:] == [{"j-dev-unknown"}]
