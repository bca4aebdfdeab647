"""The ledger as a live stream: one task learns of new entries, keeps the newest at hand and wakes who waits. Decides nothing about who may
see what.

A listener owns nothing but its position: it reads on from what is at hand or, further behind, from the store, so that a slow one costs no
memory. Who follows one job is woken by that job's news alone. Many are woken a few at a time, so that requests come in between, and what
comes meanwhile waits for the next round: rounds have at most about half of the loop's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

import structlog
from anyio import CapacityLimiter, to_thread

from justenough.adapters.store import ChangeFeed, LedgerTail, Store
from justenough.domain.core.errors import RetryLater
from justenough.domain.readmodel.views import EntryView

MAX_LISTENERS = 2_000


class TooManyListeners(RetryLater):
    """As many streams are open as the console holds."""


POLL_INTERVAL_S = 1.0
"""Seconds after which the ledger is looked at even where nothing told of a change."""


MIN_ROUND_INTERVAL_S = 0.01
"""Seconds between two rounds, at least."""


RETRY_INTERVAL_S = 1.0
"""Seconds between two looks while the store does not answer."""


MAX_RECENT_ENTRIES = 5_000
"""Entries kept at hand, at most."""


MAX_RECENT_BYTES = 16 * 1024 * 1024
"""Their text, about."""


PRELOADED_ENTRIES = 1_000
"""Entries read anew when somebody begins to listen: who comes back after a restart is mostly not further behind."""


MAX_BATCH = 500


WAKE_BATCH = 25
"""Listeners woken before others get a turn."""


MAX_STORE_READERS = 8
"""Listeners that read the store at once: those who come back all together after a restart leave the other threads to requests."""


T = TypeVar("T")


log = structlog.get_logger()


class LiveFeed:
    """Tells listeners of new ledger entries. One per console, on its event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent = RecentEntries()
        self._position: int | None = None
        """Of the newest entry seen; None while nobody listens."""
        self._listeners = 0
        self._waiting: dict[str | None, dict[asyncio.Future[bool], None]] = {}
        """By the job that they follow."""
        self._readers = CapacityLimiter(MAX_STORE_READERS)
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    @property
    def listeners(self) -> int:
        """How many listen now."""
        return self._listeners

    async def newest_position(self) -> int:
        """Return the newest entry's position, as the store has it now."""
        return (await self._read_store(self._store.ledger.head)).position

    async def follow(self, position: int | None, *, job: str | None = None, wait: float) -> AsyncGenerator[Sequence[EntryView], None]:
        """Yield entries after a position (None: from now on) as they come; an empty batch whenever `wait` seconds brought nothing.

        A position that the ledger has not reached, of another or a restored one, counts as its newest.
        """
        async with self._listener():
            seen = position
            if seen is None or seen > self._newest:
                # Not the position seen last: what came since then was there before this listener, and another console may have told of it.
                newest = await self.newest_position()
                seen = newest if seen is None else min(seen, newest)
            while True:
                newest = self._newest
                entries = await self._next_entries(seen, job)
                seen = entries[-1].position if entries else max(seen, newest)
                if entries:
                    yield entries
                elif not await self._wait_for_news(seen, job, wait):
                    yield ()

    async def close(self) -> None:
        """Stop looking."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def _newest(self) -> int:
        return self._position or 0

    async def _next_entries(self, after: int, job: str | None) -> Sequence[EntryView]:
        if after >= self._newest:
            return ()
        if self._recent.covers(after):
            return self._recent.after(after, job)
        return (await self._read_store(lambda: self._store.ledger.tail(after, job=job, limit=MAX_BATCH))).entries

    async def _read_store(self, read: Callable[[], T]) -> T:
        return await to_thread.run_sync(read, limiter=self._readers)

    async def _wait_for_news(self, after: int, job: str | None, wait: float) -> bool:
        """Whether there may be something after `after`, within so many seconds."""
        if self._newest > after:
            return True
        loop = asyncio.get_running_loop()
        news: asyncio.Future[bool] = loop.create_future()
        waiting = self._waiting.setdefault(job, {})
        waiting[news] = None
        timer = loop.call_later(wait, partial(_settle, news, found=False))
        try:
            return await news
        finally:
            timer.cancel()
            waiting.pop(news, None)
            if not waiting and self._waiting.get(job) is waiting:
                del self._waiting[job]

    @contextlib.asynccontextmanager
    async def _listener(self) -> AsyncIterator[None]:
        async with self._starting:
            if self._position is None:
                await self._preload()
            self._listeners += 1
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._poll())
        try:
            yield
        finally:
            self._listeners -= 1

    async def _preload(self) -> None:
        begin = max(0, await self.newest_position() - PRELOADED_ENTRIES)
        known = await self._read_store(lambda: self._store.ledger.tail(begin, limit=PRELOADED_ENTRIES))
        self._recent = RecentEntries(begin)
        self._recent.add(known)
        self._position = self._recent.newest

    async def _poll(self) -> None:
        """Look until nobody listens. What told of a change and what reads it are one step in one thread."""
        changes = self._store.ledger.open_change_feed()
        pool = ThreadPoolExecutor(1, "ledger")
        try:
            while self._listeners:
                took = await self._poll_once(pool, changes)
                await asyncio.sleep(max(MIN_ROUND_INTERVAL_S, took))
        finally:
            changes.close()
            pool.shutdown(wait=False)
            self._position = None

    async def _poll_once(self, pool: ThreadPoolExecutor, changes: ChangeFeed) -> float:
        """Wait for news and wake whom they concern; return the seconds of processor time that the loop took meanwhile."""
        try:
            found = await asyncio.get_running_loop().run_in_executor(pool, self._read_news, changes)
        except RetryLater as error:
            log.warning("the ledger cannot be followed now", error=str(error))
            return RETRY_INTERVAL_S
        except Exception as error:
            log.exception("the ledger could not be followed", error=type(error).__name__)
            return RETRY_INTERVAL_S
        if not found.entries:
            return 0.0
        # Not of the clock: what others on a busy machine take is not ours to make up for.
        began = time.thread_time()
        self._recent.add(found)
        self._position = self._recent.newest
        await self._wake({entry.job for entry in found.entries})
        return time.thread_time() - began

    def _read_news(self, changes: ChangeFeed) -> LedgerTail:
        changes.wait(POLL_INTERVAL_S)
        if changes.over:
            return LedgerTail((), (), more=False)
        found = self._store.ledger.tail(self._newest, limit=MAX_BATCH)
        if found.more:
            changes.again()
        return found

    async def _wake(self, jobs: Iterable[str]) -> None:
        theirs = [news for job in (None, *jobs) for news in self._waiting.pop(job, {})]
        for begin in range(0, len(theirs), WAKE_BATCH):
            for news in theirs[begin : begin + WAKE_BATCH]:
                _settle(news, found=True)
            await asyncio.sleep(0)


class RecentEntries:
    """The newest entries, in order and without a hole."""

    def __init__(self, begin: int = 0) -> None:
        self._begin = begin
        """Every entry after this position is here."""
        self._entries: list[EntryView] = []
        self._positions: list[int] = []
        self._sizes: list[int] = []
        self._size = 0

    @property
    def newest(self) -> int:
        """The last one's position, or where they begin."""
        return self._positions[-1] if self._positions else self._begin

    def covers(self, position: int) -> bool:
        """Whether every entry after a position is here."""
        return position >= self._begin

    def after(self, position: int, job: str | None) -> Sequence[EntryView]:
        """Return those after a position, of one job where it is named; of very many the first."""
        begin = bisect_right(self._positions, position)
        if job is None:
            return self._entries[begin : begin + MAX_BATCH]
        return [entry for entry in self._entries[begin:] if entry.job == job]

    def add(self, tail: LedgerTail) -> None:
        """Take what follows; let go of the oldest where there are too many."""
        self._entries += tail.entries
        self._positions += (entry.position for entry in tail.entries)
        self._sizes += tail.sizes
        self._size += sum(tail.sizes)
        count, size = max(0, len(self._entries) - MAX_RECENT_ENTRIES), self._size
        size -= sum(self._sizes[:count])
        while size > MAX_RECENT_BYTES:
            size -= self._sizes[count]
            count += 1
        if count:
            self._begin, self._size = self._positions[count - 1], size
            del self._entries[:count], self._positions[:count], self._sizes[:count]


def _settle(news: asyncio.Future[bool], *, found: bool) -> None:
    if not news.done():
        news.set_result(found)
