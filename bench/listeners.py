"""`python -m bench.listeners`: the time from an event's record to each of many listeners of a real console, and its other requests meanwhile.

The listeners do as little as possible (a socket that searches for ids), because they share the machine with what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

from bench.figures import Figure, p50, p95, table
from bench.lives import job_events, random_traits
from bench.people import Human, identity_token, login
from bench.processes import resident, since, used
from bench.scratch import scratch_stack, tell
from justenough.adapters.store import Store
from justenough.domain.core.ids import new_job_id
from justenough.domain.ledger.events import EventType, build_event
from worker.stack.stack_file import Stack

ID = re.compile(rb"\nid: (\d+)\n|retry: \d+\nid: (\d+)\n")
IDLE_S = 10.0
"""A pause without events, which shows the cost of the listeners alone."""


@dataclass(slots=True)
class Received:
    """The monotonic times at which listeners received each position."""

    times: defaultdict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    open: int = 0


class Listener(asyncio.Protocol):
    """One event stream, read as bytes."""

    def __init__(self, request: bytes, received: Received) -> None:
        self._request, self._received = request, received
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
            self._received.open += 1
        last = 0
        for match in ID.finditer(self._rest):
            self._received.times[int(match[1] or match[2])].append(at)
            last = match.end() - 1
        # An event may arrive in two parts: keep at most the line of its id.
        self._rest = self._rest[max(last, len(self._rest) - 64) :]

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._received.open -= self.begun.done() and not self.begun.exception()


@asynccontextmanager
async def open_listeners(stack: Stack, human: Human, count: int, received: Received) -> AsyncIterator[None]:
    """Keep this many streams of all events open for a block. The console has confirmed each of them when the block begins."""
    console, token = urlsplit(str(stack.console)), await identity_token(human.vault)
    lines = (
        "GET /api/v1/events HTTP/1.1",
        f"Host: {console.netloc}",
        f"Authorization: Bearer {token}",
        "Accept: text/event-stream",
        "",
        "",
    )
    request, loop, listeners = "\r\n".join(lines).encode(), asyncio.get_running_loop(), []
    for begin in range(0, count, 50):
        some = [
            (await loop.create_connection(lambda: Listener(request, received), str(console.hostname), int(console.port or 80)))[1]
            for _ in range(min(50, count - begin))
        ]
        await asyncio.gather(*(listener.begun for listener in some))
        listeners += some
    tell(f"{received.open} listeners")
    yield
    for listener in listeners:
        if listener.transport:
            listener.transport.close()


@asynccontextmanager
async def list_jobs_repeatedly(human: Human) -> AsyncIterator[list[float]]:
    """Request the list of jobs ten times a second for a block; yield a list to which the seconds of each request are added."""
    took: list[float] = []

    async def repeat() -> None:
        while True:
            began = time.perf_counter()
            await human.get("jobs", limit=20)
            took.append(time.perf_counter() - began)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(repeat())
    try:
        yield took
    finally:
        task.cancel()


async def measure(stack: Stack, *, count: int, rate: float, seconds: float, recorder: Store) -> list[Figure]:
    """Return the figures of `count` listeners while `rate` events a second are recorded for `seconds`."""
    pids, received = {"console": stack.pids["console"]}, Received()
    async with login(stack, "auditor") as human:
        before = resident(pids["console"])
        async with list_jobs_repeatedly(human) as alone:
            await asyncio.sleep(IDLE_S / 2)
        async with open_listeners(stack, human, count, received):
            grown = resident(pids["console"]) - before
            idle = used(pids)
            await asyncio.sleep(IDLE_S)
            at_rest = since(idle, used(pids))["console"] / IDLE_S
            busy = used(pids)
            async with list_jobs_repeatedly(human) as beside:
                recorded, recording = await record_events(recorder, rate, seconds)
            with suppress(TimeoutError):
                async with asyncio.timeout(30):
                    while any(len(received.times[position]) < count for position in recorded):  # noqa: ASYNC110 - sockets offer no event
                        await asyncio.sleep(0.1)
            share = since(busy, used(pids))["console"] / seconds
            late = [at - began for position, began in recorded.items() for at in received.times[position]]
            missed = sum(count - len(received.times[position]) for position in recorded)
    what = f"{count:,} listeners, {rate:g} events/s, {'PostgreSQL' if 'postgresql' in stack.database_url else 'SQLite'}"
    received_note = f"p50 {p50(late) * 1e3:.0f} ms, longest {max(late) * 1e3:.0f} ms, {missed} of {len(recorded) * count:,} missed"
    recording_note = f"recording itself p50 {p50(recording) * 1e3:.0f} ms, p95 {p95(recording) * 1e3:.0f} ms"
    alone_note = f"without listeners p50 {p50(alone) * 1e3:.0f} ms, p95 {p95(alone) * 1e3:.0f} ms"
    memory_note = f"{grown * 1024 / count:.0f} KB each; {before:.0f} MB before, {resident(pids['console']):.0f} MB at the end"
    event, listing = f"event recorded → at a listener, p95, {what}", f"GET /jobs beside them, p95, {what}"
    return [
        Figure("event_to_listener_p95", event, p95(late) * 1e3, "ms", at_most=1000, note=f"{received_note}; {recording_note}"),
        Figure("listing_beside_p95", listing, p95(beside) * 1e3, "ms", note=f"p50 {p50(beside) * 1e3:.0f} ms; {alone_note}"),
        Figure("listeners_processor", f"the console's processor time, {what}", share * 100, "% of a core", note=f"at rest {at_rest:.1%}"),
        Figure("listeners_memory", f"what they add to the console's memory, {what}", grown, "MB", note=memory_note),
    ]


async def record_events(store: Store, rate: float, seconds: float) -> tuple[dict[int, float], list[float]]:
    """Record events at a rate; return the start of each append by position, and the seconds that each append took."""
    job = new_job_id("dev", now=datetime.now(UTC))
    dice = random.Random(1)  # noqa: S311 - not for security
    await asyncio.to_thread(lambda: store.ledger.append(job_events("bare", random_traits(job, dice))))
    began, recorded, number, took = time.monotonic(), {}, 0, []
    while (now := time.monotonic()) - began < seconds:
        number += 1
        credential, at = f"c{job[1:]}-1", datetime.now(UTC)
        event = build_event(EventType.CREDENTIAL_USED, job, at=at, about=str(number), credential=credential, what="observed by a benchmark")
        (entry,) = await asyncio.to_thread(store.ledger.append, [event])
        recorded[entry.position] = now
        took.append(time.monotonic() - now)
        await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
    return recorded, took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.listeners", description="Measure how soon listeners receive an event.")
    parser.add_argument("--listeners", type=int, default=1000, metavar="N")
    parser.add_argument("--rate", type=float, default=5.0, metavar="N", help="events a second (5)")
    parser.add_argument("--seconds", type=float, default=30.0, metavar="N", help="for how long (30)")
    parser.add_argument("--url", help="the store; without it an SQLite file in a temporary folder")
    options = parser.parse_args()
    if options.url:
        os.environ["JUSTENOUGH_DATABASE_URL"] = options.url
    # One person listens for all.
    os.environ["JUSTENOUGH_QUOTA_EVENT_STREAMS"] = str(options.listeners)
    with scratch_stack() as stack, closing(Store(stack.database_url)) as store:
        print(table(asyncio.run(measure(stack, count=options.listeners, rate=options.rate, seconds=options.seconds, recorder=store))))


if __name__ == "__main__":
    main()
