"""`python -m bench.rendered`: what whole pages take over a real console and a large store, what they weigh, and how soon an open page in Chromium shows
what was recorded while many others listen. Fill a store with bench.seed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime
from pathlib import Path

import httpx
from playwright.async_api import Browser, async_playwright

from bench.figures import Figure, p50, p95
from bench.listeners import Heard, opened
from bench.lives import life, look
from bench.people import logged_in
from bench.pure import SHOP
from bench.report import table
from justenough.adapters.store import Store
from justenough.domain.core.ids import new_job_id
from justenough.domain.jobs.states import JobState, RequestState
from worker.stack import Stack, running_stack

SERVERS = ("temporal", "vault", "postgres", "console")
"""No worker: it would take up the store's open jobs, and end them."""
BUDGET = 150
"""Milliseconds that a page may take, p95."""
WEIGHT = 100 * 1024
"""Bytes that it may weigh, with its style and script."""
WHO, LAUNCHER, LAUNCH = "lead", "ops", "/jobs/new"
CSRF = re.compile(r'name="csrf" value="([^"]+)"')
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)


def places(store: Store) -> Iterator[str]:
    """Yield the pages that are measured: each list whole, narrowed and further on, one of each thing, and last the launcher's own."""
    job = store.jobs.list(state=JobState.SUCCEEDED, limit=1).items[0]
    credential, request = store.credentials.list(limit=1).items[0], store.requests.list(state=RequestState.PENDING, limit=1).items[0]
    further, older = store.jobs.list(limit=50).next, store.credentials.list(limit=50).next
    yield from ("/now", "/inbox", f"/inbox/{request.id}", "/delegations", "/sessions")
    yield from (
        "/jobs",
        "/jobs?state=failed",
        f"/jobs?name={job.name}&environment=test",
        f"/jobs?cursor={further}",
        f"/jobs/{job.id}",
    )
    yield from ("/credentials", "/credentials?show=all", f"/credentials?show=all&cursor={older}", f"/credentials/{credential.id}")
    yield from ("/ledger", f"/ledger?job={job.id}", "/ledger?type=review.opened", "/catalog", "/catalog/policies", "/report", LAUNCH)


async def measured(stack: Stack, store: Store, kind: str, *, rounds: int) -> AsyncIterator[Figure]:
    """Yield the figure of each page, after one answer that nobody measures."""
    async with visiting(stack, WHO) as reader, visiting(stack, LAUNCHER) as launcher:
        shared = await _shared(reader)
        for path in places(store):
            page = launcher if path == LAUNCH else reader
            took, weight = [], 0
            for _ in range(rounds + 1):
                began = time.perf_counter()
                answer = await page.get(path)
                took.append((time.perf_counter() - began) * 1e3)
                assert answer.status_code == 200, (path, answer.status_code, answer.text[:300])
                weight = len(answer.content)
            first, *rest = took
            tell(path)
            note = f"p50 {p50(rest):.0f} ms, the first {first:.0f} ms, {weight / 1024:.0f} KB and {shared / 1024:.0f} KB that all share"
            assert weight + shared <= WEIGHT, f"{path} weighs {weight + shared:,} bytes"
            yield Figure(path, f"{re.sub(r'cursor=.*', 'cursor=…', path)}, p95, {kind}", p95(rest), "ms", at_most=BUDGET, note=note)


@asynccontextmanager
async def visiting(stack: Stack, who: str) -> AsyncIterator[httpx.AsyncClient]:
    """A person who has logged in to the pages."""
    async with httpx.AsyncClient(
        base_url=str(stack.console), timeout=60, trust_env=False, headers={"Sec-Fetch-Site": "same-origin"}
    ) as http:
        csrf = CSRF.search((await http.get("/login?again=1")).text)
        assert csrf, "the login has a form"
        form = {"csrf": csrf[1], "next": "/now", "name": who, "password": stack.users[who].password}
        answer = await http.post("/login", data=form)
        assert answer.status_code == 303, answer.text
        yield http


async def _shared(page: httpx.AsyncClient) -> int:
    text = (await page.get("/sessions")).text
    return sum([len((await page.get(path)).content) for path in sorted(set(re.findall(r'"(/static/[^"#]+)', text)))])


async def seen(stack: Stack, store: Store, kind: str, *, listeners: int, rounds: int) -> Figure:
    """Return how long after its record a job stands in an open list of jobs, while so many listen to everything."""
    heard, took, dice = Heard(), [], random.Random(1)  # noqa: S311 - jobs like any others
    async with logged_in(stack, "auditor") as human, chromium() as browser:
        token = (await human.vault.get("identity/oidc/token/je-console")).raise_for_status().json()["data"]["token"]
        page = await browser.new_page(base_url=str(stack.console))
        await page.goto("/login?again=1&next=/jobs")
        await page.fill("#name", WHO)
        await page.fill("#password", stack.users[WHO].password)
        await page.click("button[type=submit]")
        await page.get_by_text("live ·").wait_for()
        streams = await opened(str(stack.console), token, listeners, heard)
        tell(f"{heard.open} listen")
        for _ in range(rounds):
            job = new_job_id("dev", now=datetime.now(UTC))
            began = time.monotonic()
            await asyncio.to_thread(lambda job=job: store.ledger.append(life("bare", look(job, dice))))  # type: ignore[misc]
            await page.locator(f'a[href="/jobs/{job}"]').first.wait_for()
            took.append((time.monotonic() - began) * 1e3)
        for one in streams:
            if one.transport:
                one.transport.close()
    what = f"recorded → seen in an open page, p95, {listeners:,} listeners, {kind}"
    return Figure("event_to_page_p95", what, p95(took), "ms", at_most=1000, note=f"p50 {p50(took):.0f} ms, longest {max(took):.0f} ms")


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """The system's browser."""
    program = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert program, "no Chromium is on PATH: make browser"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield started
        await started.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.rendered", description="Measure whole pages over a large store.")
    parser.add_argument("--url", help="a store that bench.seed has filled; without it an empty one, whose figures say nothing")
    parser.add_argument("--rounds", type=int, default=20, metavar="N", help="how often each is asked (20)")
    parser.add_argument("--listeners", type=int, default=1000, metavar="N")
    wanted = parser.parse_args()
    if wanted.url:
        os.environ["JUSTENOUGH_DATABASE_URL"] = wanted.url
    tell("starting a stack")
    with (
        tempfile.TemporaryDirectory(prefix="je-bench-") as folder,
        running_stack(Path(folder) / "home", SHOP, only=SERVERS) as stack,
        closing(Store(stack.database_url)) as store,
    ):
        kind = "PostgreSQL" if "postgresql" in stack.database_url else "SQLite"
        print(table(asyncio.run(_all(stack, store, kind, wanted.rounds, wanted.listeners))))


async def _all(stack: Stack, store: Store, kind: str, rounds: int, listeners: int) -> Sequence[Figure]:
    pages = [figure async for figure in measured(stack, store, kind, rounds=rounds)]
    return [*pages, await seen(stack, store, kind, listeners=listeners, rounds=rounds)]


def tell(text: str) -> None:
    """Say on stderr how far it is."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
