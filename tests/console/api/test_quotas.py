"""Nobody can use up the console: callers who have used their own share are told to retry, and everybody else is served meanwhile."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from console.concurrency.loops import run_in_background
from console.concurrency.quotas import run_pruning
from console.services.console import build_console
from justenough.adapters.configuration.settings import Settings
from justenough.domain.jobs import bundle
from tests.console.api.test_event_stream import until
from tests.console.served_console import SPEC, Served, serve_console

QUOTAS = {"quota_open_jobs": 3, "quota_waiting_requests": 2, "quota_event_streams": 2, "quota_unused_bundles": 2, "quota_calls": 1}


@pytest.fixture
async def small(served: Served, settings: Settings, own_store: Path) -> AsyncIterator[Served]:
    """A console with a store of its own, where everybody's share is small."""
    changed = settings.model_copy(update={**QUOTAS, "database_url": f"sqlite:///{own_store}"})
    async with build_console(changed) as console, serve_console(console) as http:
        yield dataclasses.replace(served, http=http, console=console)


def assert_over_quota(answer: httpx.Response, detail: str) -> None:
    """Assert that an answer tells what is used up and when to retry."""
    assert answer.status_code == 429, answer.text
    assert detail in answer.json()["detail"]
    assert int(answer.headers["Retry-After"]) >= 1


async def test_each_launcher_has_their_own_quota_of_open_jobs(small: Served) -> None:
    orders = [small.people["ops"].order() for _ in range(4)]
    answers = [await small.post("/jobs", "ops", order) for order in orders]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert_over_quota(answers[-1], "3 of your jobs in prod have not ended; wait until some have, or stop them (the quota is 3)")
    # An order that was recorded is returned as always.
    assert (await small.post("/jobs", "ops", orders[0])).status_code == 200
    # An environment that no resource has does not get a quota of its own.
    made_up = small.people["ops"].order({**SPEC, "environment": "elsewhere", "access": []})
    assert_over_quota(await small.post("/jobs", "ops", made_up), "3 of your jobs have not ended")
    assert (await small.post("/jobs", "ops2", small.people["ops2"].order())).status_code == 201
    small.end(orders[0]["id"])
    assert (await small.post("/jobs", "ops", orders[3])).status_code == 201


async def test_a_repeated_idempotency_key_returns_its_job_even_if_the_quota_is_used_up(small: Served) -> None:
    key = {"Idempotency-Key": "once"}
    first = await small.post("/jobs", "ops", small.people["ops"].order(), headers=key)
    for _ in range(2):
        await small.launch()
    again = await small.post("/jobs", "ops", small.people["ops"].order(), headers=key)
    assert (again.status_code, again.json()["id"]) == (200, first.json()["id"])


async def test_a_launcher_over_the_quota_of_pending_requests_cannot_launch(small: Served) -> None:
    job = (await small.launch())["id"]
    requests = [small.record_request(job, number=number) for number in (1, 2)]
    refused = await small.post("/jobs", "ops", small.people["ops"].order())
    assert_over_quota(refused, "2 of your requests in prod wait for people; wait for answers, or stop jobs (the quota is 2)")
    assert (await small.post("/jobs", "ops2", small.people["ops2"].order())).status_code == 201
    small.record_answer(requests[0], "lead")
    await small.launch()


async def test_each_person_has_their_own_quota_of_event_streams(small: Served) -> None:
    async def open_stream(opened: AsyncExitStack, who: str) -> httpx.Response:
        stream = small.http.stream("GET", "/api/v1/events", headers=small.people[who].bearer)
        return await opened.enter_async_context(stream)

    async with AsyncExitStack() as opened:
        first = await open_stream(opened, "ops")
        assert [first.status_code, (await open_stream(opened, "ops")).status_code] == [200, 200]
        third = await open_stream(opened, "ops")
        await third.aread()
        assert_over_quota(third, "2 event streams are open for you here; close some pages or clients (the quota is 2)")
        assert (await open_stream(opened, "auditor")).status_code == 200
        await first.aclose()
        async with asyncio.timeout(60):
            while (again := await open_stream(opened, "ops")).status_code == 429:
                await again.aclose()


async def test_each_person_has_their_own_quota_of_unused_bundles(small: Served) -> None:
    async def upload(who: str, number: int) -> httpx.Response:
        headers = {"Content-Type": "application/gzip"} | small.people[who].bearer
        return await small.http.post("/api/v1/bundles", content=bundle.pack({"data": (b"%d" % number, False)}), headers=headers)

    first, second, third = [await upload("ops", number) for number in range(3)]
    assert [first.status_code, second.status_code] == [201, 201]
    assert_over_quota(third, "2 bundles that you uploaded are not used by any job; launch jobs with them first (the quota is 2)")
    assert (await upload("ops2", 3)).status_code == 201
    await small.launch(bundle=first.json()["digest"])
    assert (await upload("ops", 4)).status_code == 201


async def test_the_console_deletes_uploaded_bundles_that_no_job_uses(small: Served) -> None:
    old, new = (f"sha256:{letter * 64}" for letter in "ab")
    now = datetime.now(UTC)
    for digest, at in ((old, now - timedelta(minutes=61)), (new, now - timedelta(minutes=59))):
        small.store.bundles.add(digest, b"content", at=at)
    async with run_in_background(run_pruning(small.console.deps)):
        await until(lambda: small.store.bundles.get(old) is None)
    assert small.store.bundles.get(new) == b"content"


async def test_the_calls_of_one_person_take_turns_without_delaying_their_kills_or_other_people(small: Served) -> None:
    began, end = asyncio.Event(), asyncio.Event()

    async def slow_body() -> AsyncIterator[bytes]:
        yield b"x"
        began.set()
        await end.wait()
        yield b"y"

    async def read_jobs() -> httpx.Response:
        return await small.get("/jobs", "ops")

    headers = {"Content-Type": "application/gzip"} | small.people["ops"].bearer
    async with asyncio.TaskGroup() as group:
        slow = group.create_task(small.http.post("/api/v1/bundles", content=slow_body(), headers=headers))
        await began.wait()
        await until(lambda: count_calls(small) == 1)
        waiting = [group.create_task(read_jobs()) for _ in range(4)]
        await until(lambda: count_calls(small) == 5)
        assert_over_quota(await read_jobs(), "5 of your calls are already being served or waiting; send fewer at once")
        assert (await small.get("/jobs", "auditor")).status_code == 200
        # The answer 404 shows that the call was served.
        assert (await small.post("/jobs/j-dev-none/kill", "ops")).status_code == 404
        assert not any(task.done() for task in (slow, *waiting))
        end.set()
    assert slow.result().status_code == 422
    assert [task.result().status_code for task in waiting] == [200] * 4
    assert count_calls(small) == 0


def count_calls(served: Served) -> int:
    """Return how many calls are served or wait."""
    return sum(queue.calls for queue in served.console.quotas._queues.values())
