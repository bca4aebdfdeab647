"""The ledger as a live stream from both databases: each event once and in order, for every listener, however slow, wherever the stream
breaks.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, closing
from itertools import pairwise

import psycopg
import pytest

from console.events import live_feed as feeds
from console.events.live_feed import LiveFeed
from justenough.adapters.store import Store
from justenough.domain.readmodel.views import EntryView
from tests.adapters.store.event_samples import job_id, job_refusal, submission
from tests.adapters.store.test_ledger_writer import tamper

PATIENCE = 60
"""Seconds; a busy machine is slow, and nothing here waits for a clock."""


@pytest.fixture
async def feed(store: Store) -> AsyncIterator[LiveFeed]:
    made = LiveFeed(store)
    yield made
    await made.close()


def record(store: Store, job: str, begin: int, count: int, *, at_once: int = 1) -> None:
    """Record events of a job, a few in each transaction."""
    for number in range(begin, begin + count, at_once):
        store.ledger.append([job_refusal("x", job=job, about=str(one)) for one in range(number, min(number + at_once, begin + count))])


async def listen_until(feed: LiveFeed, position: int, until: int, *, job: str | None = None) -> list[EntryView]:
    """Everything that a listener hears up to a position; nothing but news wakes it."""
    found: list[EntryView] = []
    async with asyncio.timeout(PATIENCE), aclosing(feed.follow(position, job=job, wait=lambda: 2 * PATIENCE)) as batches:
        async for entries in batches:
            found += entries
            if found and found[-1].position >= until:
                return found
    raise AssertionError


async def wait_for_listeners(feed: LiveFeed, count: int) -> None:
    """Return once so many listeners wait for news; they tell nobody."""
    async with asyncio.timeout(PATIENCE):
        while sum(map(len, feed._waiting.values())) < count:  # noqa: ASYNC110 - as its docstring says
            await asyncio.sleep(0.01)


def all_entries(store: Store, *, job: str | None = None, after: int = 0) -> list[EntryView]:
    found: list[EntryView] = []
    while True:
        page = store.ledger.entries(job=job, after=after, limit=1000)
        found += page.items
        if page.next is None:
            return found
        after = int(page.next)


async def test_hundreds_of_listeners_get_each_event_once_and_in_order(store: Store, feed: LiveFeed) -> None:
    jobs = [job_id(number) for number in range(3)]
    store.ledger.append([submission(job) for job in jobs])
    # Of each job two entries more than of the one before, and the last one of all is the last job's.
    last = 3 + 3 * 40
    ends: dict[str | None, int] = {None: last, **{job: last - 2 + number for number, job in enumerate(jobs)}}
    kinds = [(None, *jobs)[number % 4] for number in range(300)]
    listening = [asyncio.create_task(listen_until(feed, len(jobs), ends[job], job=job)) for job in kinds]
    await wait_for_listeners(feed, len(kinds))
    for number in range(40):
        for name in jobs:
            await asyncio.to_thread(record, store, name, number, 1)
    for job, found in zip(kinds, await asyncio.gather(*listening), strict=True):
        assert found == all_entries(store, job=job, after=3)


@pytest.mark.parametrize("recent", [3, 5_000])
@pytest.mark.parametrize("job", [None, job_id(0)])
async def test_a_stream_that_is_cut_anywhere_repeats_and_loses_nothing(
    store: Store, feed: LiveFeed, monkeypatch: pytest.MonkeyPatch, recent: int, job: str | None
) -> None:
    """Whether the stream continues from memory or, if it is further behind, from the store."""
    monkeypatch.setattr(feeds, "MAX_RECENT_ENTRIES", recent)
    monkeypatch.setattr(feeds, "PRELOADED_ENTRIES", recent)
    monkeypatch.setattr(feeds, "MAX_BATCH", 4)
    writing = asyncio.create_task(asyncio.to_thread(_record_two, store, 60))
    for cuts in ((1,), (2, 3), (7,), (60,), (59, 1, 1)):
        found: list[EntryView] = []
        position, wanted = 0, 120 if job is None else 60
        for cut in (*cuts, wanted):
            async with asyncio.timeout(PATIENCE), aclosing(feed.follow(position, job=job, wait=lambda: 0.05)) as batches:
                taken: list[EntryView] = []
                async for entries in batches:
                    # Before its connection broke, a client may have received any part of what was sent.
                    taken += entries
                    if len(taken) >= min(cut, wanted - len(found)):
                        break
            found += taken[:cut]
            position = found[-1].position
            if len(found) >= wanted:
                break
        await writing
        assert found[:wanted] == all_entries(store, job=job)[:wanted]
        assert all(one.position < other.position for one, other in pairwise(found))


def _record_two(store: Store, count: int) -> None:
    for number in range(count):
        record(store, job_id(0), number, 1)
        record(store, job_id(1), number, 1)


async def test_a_slow_listener_keeps_nothing_in_memory_and_misses_nothing(
    store: Store, feed: LiveFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MAX_RECENT_ENTRIES", 50)
    async with aclosing(feed.follow(0, wait=lambda: 0.05)) as slow, asyncio.timeout(PATIENCE):
        assert await anext(slow) == ()
        quick = asyncio.create_task(listen_until(feed, 0, 2000))
        await asyncio.to_thread(record, store, job_id(0), 0, 2000, at_once=100)
        assert [entry.position for entry in await quick] == list(range(1, 2001))
        assert len(feed._recent.entries) <= 50
        assert not feed._waiting
        late: list[EntryView] = []
        while len(late) < 2000:
            late += await anext(slow)
    assert [entry.position for entry in late] == list(range(1, 2001))


async def test_large_entries_are_neither_kept_nor_read_all_at_once(store: Store, feed: LiveFeed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("justenough.adapters.store.ledger_repository.MAX_TAIL_BYTES", 10_000)
    monkeypatch.setattr(feeds, "MAX_RECENT_BYTES", 30_000)
    store.ledger.append([job_refusal("x" * 6_000, about=str(number)) for number in range(20)])
    assert [len(store.ledger.tail(after, limit=100).entries) for after in (0, 19, 20)] == [1, 1, 0]
    assert store.ledger.tail(0, limit=100).more
    found = await listen_until(feed, 0, 20)
    assert [entry.position for entry in found] == list(range(1, 21))
    assert feed._recent._size <= 30_000


@pytest.mark.parametrize("position", [21, 10**15])
async def test_a_position_beyond_the_ledgers_end_is_treated_as_its_newest(store: Store, feed: LiveFeed, position: int) -> None:
    record(store, job_id(0), 0, 20)
    listening = asyncio.create_task(listen_until(feed, position, 21))
    await wait_for_listeners(feed, 1)
    record(store, job_id(0), 20, 1)
    assert [entry.position for entry in await listening] == [21]


async def test_a_listener_without_events_gets_empty_batches_at_the_given_interval(store: Store, feed: LiveFeed) -> None:
    began = time.monotonic()
    async with aclosing(feed.follow(0, job=job_id(0), wait=lambda: 0.3)) as batches, asyncio.timeout(PATIENCE):
        assert await anext(batches) == ()
        assert await anext(batches) == ()
    assert time.monotonic() - began >= 0.6


async def test_listeners_that_join_while_entries_are_recorded_miss_none(store: Store, feed: LiveFeed) -> None:
    """Listeners come and go while entries are recorded, each from its own position."""
    record(store, job_id(0), 0, 100, at_once=10)
    writing = asyncio.create_task(asyncio.to_thread(record, store, job_id(0), 100, 100))
    positions: Sequence[int] = range(0, 101, 5)
    found = await asyncio.gather(*(listen_until(feed, position, 200) for position in positions))
    await writing
    assert [[entry.position for entry in one] for one in found] == [list(range(position + 1, 201)) for position in positions]


@pytest.mark.parametrize("url", [pytest.param("postgresql", marks=pytest.mark.servers)], indirect=True)
async def test_a_connection_that_is_cut_loses_no_news(url: str) -> None:
    """Connections are cut repeatedly, including the one by which PostgreSQL reports commits."""
    with closing(Store(url)) as store, closing(Store(url)) as writer:
        feed = LiveFeed(store)
        listening = asyncio.create_task(listen_until(feed, 0, 300))
        await wait_for_listeners(feed, 1)
        cut = 0
        with psycopg.connect(url, autocommit=True) as admin:
            for number in range(0, 300, 10):
                await asyncio.to_thread(record, writer, job_id(0), number, 10)
                ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'justenough-listener' AND datname = current_database()"
                cut += len(admin.execute(ended).fetchall())
        assert [entry.position for entry in await listening] == list(range(1, 301))
        await feed.close()
    assert cut


@pytest.mark.parametrize("job", [None, job_id(0)])
@pytest.mark.parametrize("count", [2, 9])
@pytest.mark.parametrize("tail_bytes", [1_000_000, 300])
async def test_a_listener_gets_the_entries_after_a_restore_although_it_had_got_others_at_their_positions(
    store: Store, feed: LiveFeed, url: str, monkeypatch: pytest.MonkeyPatch, job: str | None, count: int, tail_bytes: int
) -> None:
    """Whether the ledger is still shorter when the feed reads it again, or longer already, and however little it reads at once."""
    monkeypatch.setattr("justenough.adapters.store.ledger_repository.MAX_TAIL_BYTES", tail_bytes)
    record(store, job_id(0), 0, 8)
    heard: list[str] = []
    async with asyncio.timeout(PATIENCE), aclosing(feed.follow(8, job=job, wait=lambda: 0.05)) as batches:
        record(store, job_id(0), 8, 5)
        while len(heard) < 5:
            heard += [entry.id for entry in await anext(batches)]
        tamper(
            url,
            "DELETE FROM ledger WHERE position > 8",
            "UPDATE chain_heads SET seq = 8, hash = (SELECT hash FROM ledger WHERE position = 8)",
        )
        record(store, job_id(0), 20, count, at_once=count)
        while len(heard) < 5 + count:
            heard += [entry.id for entry in await anext(batches)]
    assert heard[5:] == [entry.id for entry in all_entries(store, after=8)]
