"""`python -m bench.tabs`: what many open pages cost a real console while events arrive, and how soon it answers others meanwhile.

Each tab does what app.js does, without a browser: it keeps its stream open and, after each notice, requests the regions that changed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field

import httpx

from bench.figures import Figure, p50, p95, table
from bench.listeners import list_jobs_repeatedly, record_events
from bench.people import login
from bench.processes import resident, since, used
from bench.rendered import READER, SERVERS, page_session
from bench.scratch import scratch_stack, tell
from console.pages.regions import AUTO_REFRESH_HEADER, KNOWN_REGIONS_HEADER
from justenough.adapters.store import Store
from worker.stack.stack_file import Stack

STREAM = re.compile(r'data-stream="([^"]+)"')
REGION = re.compile(r'\sid="([^"]+)"[^>]*\sdata-region="(\w+)"')
"""A region of a page and its digest."""
PATHS = ("/now", "/credentials", "/ledger")
"""The pages that are open, in turn: each is concerned by every event that is recorded."""
OPENED_AT_ONCE = 25


@dataclass(slots=True)
class Tabs:
    """The open pages, and what they did."""

    client: httpx.AsyncClient
    open: int = 0
    notices: int = 0
    refreshes: list[float] = field(default_factory=list)
    """Seconds that each refresh took."""
    kilobytes: float = 0.0
    """What all refreshes received, decompressed."""

    async def follow(self, path: str, page: str, opened: asyncio.Event) -> None:
        """Be one tab until cancelled."""
        known = dict(REGION.findall(page))
        stream = STREAM.search(page)
        assert stream, f"{path} is not live"
        request = self.client.build_request("GET", stream[1].replace("&amp;", "&"))
        # Do not use the client: the more connections its pool has, the longer each request takes.
        lines, to_console = await asyncio.open_connection(request.url.host, request.url.port)
        try:
            head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
            to_console.write(f"GET {request.url.raw_path.decode()} HTTP/1.1\r\n{head}\r\n".encode())
            status = await lines.readline()
            assert b" 200 " in status, status
            self.open += 1
            opened.set()
            while line := await lines.readline():
                if line == b"event: change\n":
                    self.notices += 1
                    known |= await self._refresh(path, known)
        finally:
            to_console.close()

    async def _refresh(self, path: str, known: Mapping[str, str]) -> Mapping[str, str]:
        """Return the digest of each region that changed."""
        began = asyncio.get_running_loop().time()
        digests = ",".join(f"{name}={digest}" for name, digest in known.items())
        response = await self.client.get(path, headers={AUTO_REFRESH_HEADER: "1", KNOWN_REGIONS_HEADER: digests})
        assert response.status_code == 200, response.status_code
        self.refreshes.append(asyncio.get_running_loop().time() - began)
        self.kilobytes += len(response.content) / 1024
        return dict(REGION.findall(response.text))


@asynccontextmanager
async def open_tabs(stack: Stack, count: int) -> AsyncIterator[Tabs]:
    """Keep this many pages open for a block."""
    async with page_session(stack, READER) as session, asyncio.TaskGroup() as group:
        client = httpx.AsyncClient(
            base_url=str(stack.console), cookies=session.cookies, headers=session.headers, timeout=120, trust_env=False
        )
        async with client:
            tabs, tasks = Tabs(client), []
            for begin in range(0, count, OPENED_AT_ONCE):
                opened = [asyncio.Event() for _ in range(min(OPENED_AT_ONCE, count - begin))]
                for number, event in enumerate(opened):
                    path = PATHS[number % len(PATHS)]
                    tasks.append(group.create_task(tabs.follow(path, (await client.get(path)).text, event)))
                await asyncio.gather(*(event.wait() for event in opened))
            tell(f"{tabs.open} tabs")
            yield tabs
            for task in tasks:
                task.cancel()


async def measure(stack: Stack, *, count: int, rate: float, seconds: float, recorder: Store) -> list[Figure]:
    """Return the figures of `count` open pages while `rate` events a second are recorded for `seconds`."""
    pids = {"console": stack.pids["console"]}
    async with login(stack, "auditor") as human, open_tabs(stack, count) as tabs:
        before = used(pids)
        async with list_jobs_repeatedly(human) as beside:
            await record_events(recorder, rate, seconds)
        share = since(before, used(pids))["console"] / seconds
        memory = resident(pids["console"])
        refreshes, notices, kilobytes = list(tabs.refreshes), tabs.notices, tabs.kilobytes
    what = f"{count:,} open pages, {rate:g} events/s for {seconds:g} s"
    done = (
        f"{len(refreshes):,} refreshes after {notices:,} notices, {kilobytes / max(1, len(refreshes)):.1f} KB each; console {memory:.0f} MB"
    )
    return [
        Figure("tabs_processor", f"the console's processor time, {what}", share * 100, "% of a core", at_most=100, note=done),
        Figure("tabs_refresh_p95", f"a refresh, p95, {what}", p95(refreshes) * 1e3, "ms", note=f"p50 {p50(refreshes) * 1e3:.0f} ms"),
        Figure(
            "listing_beside_tabs_p95",
            f"GET /jobs beside them, p95, {what}",
            p95(beside) * 1e3,
            "ms",
            note=f"p50 {p50(beside) * 1e3:.0f} ms",
        ),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.tabs", description="Measure what many open pages cost.")
    parser.add_argument("--tabs", type=int, default=1000, metavar="N")
    parser.add_argument("--rate", type=float, default=5.0, metavar="N", help="events a second (5)")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="N", help="for how long (60)")
    options = parser.parse_args()
    # One person has them all open.
    os.environ |= dict.fromkeys(("JUSTENOUGH_QUOTA_EVENT_STREAMS", "JUSTENOUGH_QUOTA_CALLS"), str(options.tabs))
    with scratch_stack(only=SERVERS) as stack, closing(Store(stack.database_url)) as store:
        print(table(asyncio.run(measure(stack, count=options.tabs, rate=options.rate, seconds=options.seconds, recorder=store))))


if __name__ == "__main__":
    main()
