"""`python -m bench.listeners`: from an event's record to each of many listeners, over a real console; and what else the console answers meanwhile.

The listeners are as little as can be (a socket that looks for ids), because they share the machine with what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from bench.figures import Figure, p50, p95
from bench.lives import life, look
from bench.people import Human, logged_in
from bench.processes import resident, since, used
from bench.pure import SHOP
from bench.report import table
from justenough.adapters.store import Store
from justenough.domain.core.ids import new_job_id
from justenough.domain.ledger.events import Event, EventType, build_event
from worker.stack import Stack, running_stack

ID = re.compile(rb"\nid: (\d+)\n|retry: \d+\nid: (\d+)\n")
IDLE = 10.0
"""Seconds in which nothing happens, for what listeners cost by themselves."""


@dataclass(slots=True)
class Heard:
    """When each listener heard of which position, in seconds of the clock of monotonic time."""

    times: dict[int, list[float]] = field(default_factory=dict)
    open: int = 0

    def of(self, position: int, at: float) -> None:
        """One listener heard of it."""
        self.times.setdefault(position, []).append(at)


class Listener(asyncio.Protocol):
    """One stream, read as bytes."""

    def __init__(self, request: bytes, heard: Heard) -> None:
        self._request, self._heard = request, heard
        self._rest = b""
        self.begun = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        at = time.monotonic()
        self._rest += data
        if not self.begun.done():
            if b": after " not in self._rest:
                if b"\r\n\r\n" in self._rest and b" 200 " not in self._rest[:20]:
                    self.begun.set_exception(RuntimeError(self._rest[:300].decode()))
                return
            self.begun.set_result(None)
            self._heard.open += 1
        last = 0
        for match in ID.finditer(self._rest):
            self._heard.of(int(match[1] or match[2]), at)
            last = match.end() - 1
        # A block may come in two parts: its id's line at most is kept.
        self._rest = self._rest[max(last, len(self._rest) - 64) :]

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._heard.open -= self.begun.done() and not self.begun.exception()


async def opened(console: str, token: str, count: int, heard: Heard) -> list[Listener]:
    """Return so many open streams of everything, each of which has been told that it is open."""
    where = urlsplit(console)
    request = f"GET /api/v1/events HTTP/1.1\r\nHost: {where.netloc}\r\nAuthorization: Bearer {token}\r\nAccept: text/event-stream\r\n\r\n".encode()
    loop, listeners = asyncio.get_running_loop(), []
    for begin in range(0, count, 50):
        some = [
            (await loop.create_connection(lambda: Listener(request, heard), str(where.hostname), int(where.port or 80)))[1]
            for _ in range(min(50, count - begin))
        ]
        await asyncio.gather(*(one.begun for one in some))
        listeners += some
    return listeners


@contextlib.asynccontextmanager
async def _asking(human: Human, every: float) -> AsyncIterator[list[float]]:
    """Ask for a list of jobs again and again for the length of a block; give the seconds that each answer took."""
    took: list[float] = []

    async def ask() -> None:
        while True:
            began = time.perf_counter()
            await human.get("jobs", limit=20)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(every)

    task = asyncio.create_task(ask())
    try:
        yield took
    finally:
        task.cancel()


def _happening(job: str, number: int) -> Event:
    return build_event(
        EventType.CREDENTIAL_USED, job, at=datetime.now(UTC), about=str(number), credential=f"c{job[1:]}-1", what="seen by a measurement"
    )


async def measured(stack: Stack, *, count: int, rate: float, seconds: float, recorder: Store) -> list[Figure]:
    """Return the figures of so many listeners, while so many events a second are recorded for so long."""
    pids, heard = {"console": stack.pids["console"]}, Heard()
    async with logged_in(stack, "auditor") as human:
        token = (await human.vault.get("identity/oidc/token/je-console")).raise_for_status().json()["data"]["token"]
        before = resident(pids["console"])
        async with _asking(human, 0.1) as alone:
            await asyncio.sleep(IDLE / 2)
        listeners = await opened(str(stack.console), token, count, heard)
        _tell(f"{heard.open} listen")
        grown = resident(pids["console"]) - before
        idle = used(pids)
        await asyncio.sleep(IDLE)
        at_rest = since(idle, used(pids))["console"] / IDLE
        busy = used(pids)
        async with _asking(human, 0.1) as beside:
            told, recording = await _recorded(recorder, rate, seconds)
        await _all_heard(heard, told, count)
        share = since(busy, used(pids))["console"] / seconds
        late = [at - told[position] for position in told for at in heard.times.get(position, [])]
        missed = sum(count - len(heard.times.get(position, [])) for position in told)
        for one in listeners:
            if one.transport:
                one.transport.close()
    kind = "PostgreSQL" if "postgresql" in stack.database_url else "SQLite"
    what = f"{count:,} listeners, {rate:g} events/s, {kind}"
    return [
        Figure(
            "event_to_listener_p95",
            f"event recorded → at a listener, p95, {what}",
            p95(late) * 1e3,
            "ms",
            at_most=1000,
            note=f"p50 {p50(late) * 1e3:.0f} ms, longest {max(late) * 1e3:.0f} ms, {missed} of {len(told) * count:,} missed; recording itself p50 {p50(recording) * 1e3:.0f} ms, p95 {p95(recording) * 1e3:.0f} ms",
        ),
        Figure(
            "listing_beside_p95",
            f"GET /jobs beside them, p95, {what}",
            p95(beside) * 1e3,
            "ms",
            note=f"p50 {p50(beside) * 1e3:.0f} ms; without listeners p50 {p50(alone) * 1e3:.0f} ms, p95 {p95(alone) * 1e3:.0f} ms",
        ),
        Figure(
            "listeners_processor",
            f"the console's processor time, {what}",
            share * 100,
            "% of a core",
            note=f"at rest {at_rest * 100:.1f} %",
        ),
        Figure(
            "listeners_memory",
            f"what they add to the console's memory, {what}",
            grown,
            "MB",
            note=f"{grown * 1024 / count:.0f} KB each; {before:.0f} MB before, {resident(pids['console']):.0f} MB at the end",
        ),
    ]


async def _recorded(store: Store, rate: float, seconds: float) -> tuple[dict[int, float], list[float]]:
    """Record events at a rate; return when each was about to be, by position, and the seconds that recording took."""
    job = new_job_id("dev", now=datetime.now(UTC))
    dice = random.Random(1)  # noqa: S311 - a job like any other
    await asyncio.to_thread(lambda: store.ledger.append(life("bare", look(job, dice))))
    began, told, number = time.monotonic(), {}, 0
    took = []
    while (now := time.monotonic()) - began < seconds:
        number += 1
        (entry,) = await asyncio.to_thread(store.ledger.append, [_happening(job, number)])
        told[entry.position] = now
        took.append(time.monotonic() - now)
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
    return told, took


async def _all_heard(heard: Heard, told: dict[int, float], count: int) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            while any(  # noqa: ASYNC110 - as its comment says
                len(heard.times.get(position, [])) < count for position in told
            ):
                # Sockets tell when they will; nobody else does.
                await asyncio.sleep(0.1)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.listeners", description="Measure how soon listeners hear of an event.")
    parser.add_argument("--listeners", type=int, default=1000, metavar="N")
    parser.add_argument("--rate", type=float, default=5.0, metavar="N", help="events a second (5)")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="N", help="for how long (30)")
    parser.add_argument("--url", help="the store; without it an SQLite file in a temporary folder")
    asked = parser.parse_args()
    if asked.url:
        os.environ["JUSTENOUGH_DATABASE_URL"] = asked.url
    _tell("starting a stack")
    with (
        tempfile.TemporaryDirectory(prefix="je-bench-") as folder,
        running_stack(Path(folder) / "home", SHOP) as stack,
        closing(Store(stack.database_url)) as store,
    ):
        figures = asyncio.run(measured(stack, count=asked.listeners, rate=asked.rate, seconds=asked.seconds, recorder=store))
    print(table(figures))


def _tell(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
