"""`python -m bench.rendered`: the time and size of whole pages of a real console with a large store, and how soon an open page shows a new job.

The open page is in Chromium, beside many other listeners. Fill a store with bench.seed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime

import httpx
from playwright.async_api import Browser, async_playwright

from bench.figures import Figure, p50, p95, table
from bench.listeners import Received, open_listeners
from bench.lives import job_events, random_traits
from bench.people import login
from bench.scratch import scratch_stack, tell
from justenough.adapters.store import Store
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState, RequestState
from worker.stack.doctor.machine import BROWSERS
from worker.stack.stack_file import Stack

SERVERS = ("temporal", "vault", "postgres", "console")
"""Without a worker, which would end the store's open jobs."""
MAX_PAGE_MS = 150
"""The budget of a page, p95."""
MAX_PAGE_BYTES = 100 * 1024
"""The budget of a page with its style and script."""
READER, LAUNCHER, LAUNCH = "lead", "ops", "/jobs/new"
CSRF = re.compile(r'name="csrf" value="([^"]+)"')
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def page_paths(store: Store) -> Iterator[str]:
    """Yield the measured pages: each list in full, filtered and paged, one detail page of each kind, and last the launch form."""
    job = store.jobs.list(state=JobState.SUCCEEDED, limit=1).items[0]
    credential, request = store.credentials.list(limit=1).items[0], store.requests.list(state=RequestState.PENDING, limit=1).items[0]
    next_jobs, next_credentials = store.jobs.list(limit=50).next, store.credentials.list(limit=50).next
    yield from ("/now", "/inbox", f"/inbox/{request.id}", "/delegations", "/sessions")
    yield from ("/jobs", "/jobs?state=failed", f"/jobs?name={job.name}&environment=test", f"/jobs?cursor={next_jobs}", f"/jobs/{job.id}")
    yield from (
        "/credentials",
        "/credentials?show=all",
        f"/credentials?show=all&cursor={next_credentials}",
        f"/credentials/{credential.id}",
    )
    yield from ("/ledger", f"/ledger?job={job.id}", "/ledger?type=review.opened", "/catalog", "/catalog/policies", "/report", LAUNCH)


async def measure_pages(stack: Stack, store: Store, kind: str, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figure of each page. The first request of a page does not count."""
    async with page_session(stack, READER) as reader, page_session(stack, LAUNCHER) as launcher:
        static = set(re.findall(r'"(/static/[^"#]+)', (await reader.get("/sessions")).text))
        shared = sum([len((await reader.get(path)).content) for path in sorted(static)])
        for path in page_paths(store):
            page = launcher if path == LAUNCH else reader
            took, size = [], 0
            for _ in range(rounds + 1):
                began = time.perf_counter()
                response = await page.get(path)
                took.append((time.perf_counter() - began) * 1e3)
                assert response.status_code == 200, (path, response.status_code, response.text[:300])
                size = len(response.content)
            first, *rest = took
            tell(path)
            note = f"p50 {p50(rest):.0f} ms, the first {first:.0f} ms, {size / 1024:.0f} KB and {shared / 1024:.0f} KB that all share"
            assert size + shared <= MAX_PAGE_BYTES, f"{path} has {size + shared:,} bytes"
            yield Figure(path, f"{re.sub(r'cursor=.*', 'cursor=…', path)}, p95, {kind}", p95(rest), "ms", at_most=MAX_PAGE_MS, note=note)


@asynccontextmanager
async def page_session(stack: Stack, name: str) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a person who has logged in to the pages."""
    headers = {"Sec-Fetch-Site": "same-origin"}
    async with httpx.AsyncClient(base_url=str(stack.console), timeout=60, trust_env=False, headers=headers) as client:
        csrf = CSRF.search((await client.get("/login?again=1")).text)
        assert csrf, "the login has a form"
        form = {"csrf": csrf[1], "next": "/now", "name": name, "password": stack.users[name].password}
        response = await client.post("/login", data=form)
        assert response.status_code == 303, response.text
        yield client


async def measure_open_page(stack: Stack, store: Store, kind: str, *, listeners: int, rounds: int) -> Figure:
    """Return how long after its record a job appears in an open list of jobs, while this many listeners are connected."""
    took, dice = [], random.Random(1)  # noqa: S311 - not for security
    async with login(stack, "auditor") as human, chromium() as browser:
        page = await browser.new_page(base_url=str(stack.console))
        await page.goto("/login?again=1&next=/jobs")
        await page.fill("#name", READER)
        await page.fill("#password", stack.users[READER].password)
        await page.click("button[type=submit]")
        await page.get_by_text("live ·").wait_for()
        async with open_listeners(stack, human, listeners, Received()):
            for _ in range(rounds):
                job = new_job_id("dev", now=datetime.now(UTC))
                began = time.monotonic()
                await asyncio.to_thread(store.ledger.append, job_events("bare", random_traits(job, dice)))
                await page.locator(f'a[href="/jobs/{job}"]').first.wait_for()
                took.append((time.monotonic() - began) * 1e3)
    what = f"recorded → visible in an open page, p95, {listeners:,} listeners, {kind}"
    return Figure("event_to_page_p95", what, p95(took), "ms", at_most=1000, note=f"p50 {p50(took):.0f} ms, longest {max(took):.0f} ms")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Yield the system's browser."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    assert program, "no Chromium is on PATH: make browser"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        await browser.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.rendered", description="Measure whole pages over a large store.")
    parser.add_argument("--url", help="a store that bench.seed has filled; without it an empty one, whose figures mean nothing")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="requests per page (20)")
    parser.add_argument("--listeners", type=int, default=1000, metavar="N")
    options = parser.parse_args()
    if options.url:
        os.environ["JUSTENOUGH_DATABASE_URL"] = options.url
    with scratch_stack(only=SERVERS) as stack, closing(Store(stack.database_url)) as store:
        print(table(asyncio.run(_measure(stack, store, options.rounds, options.listeners))))


async def _measure(stack: Stack, store: Store, rounds: int, listeners: int) -> Sequence[Figure]:
    kind = "PostgreSQL" if "postgresql" in stack.database_url else "SQLite"
    pages = [figure async for figure in measure_pages(stack, store, kind, rounds=rounds)]
    return [*pages, await measure_open_page(stack, store, kind, listeners=listeners, rounds=rounds)]


if __name__ == "__main__":
    main()
