"""The ledger as a live stream: one task reads new entries, keeps the newest in memory and wakes the listeners. Does not check who may see them.

A listener has only a position: it continues from the entries in memory or, if it is further behind, from the store. A slow listener therefore
costs no memory. A listener of one job is woken only by entries of that job. Listeners are woken a few at a time, so that requests run in
between. New entries wait for the next round: rounds take at most about half of the event loop's time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import takewhile
from typing import TypeVar

import structlog
from anyio import CapacityLimiter, to_thread

from justenough.adapters.store import ChangeFeed, LedgerTail, Store
from justenough.domain.core.errors import RetryLater
from justenough.domain.ledger.merkle import leaf_of
from justenough.domain.readmodel.views import EntryView

MAX_LISTENERS = 2_000
POLL_INTERVAL_S = 1.0
"""How often the ledger is read even if no change was reported."""
MIN_ROUND_INTERVAL_S = 0.01
RETRY_INTERVAL_S = 1.0
MAX_RECENT_ENTRIES = 5_000
MAX_RECENT_BYTES = 16 * 1024 * 1024
"""Approximate size of the text of the entries kept in memory."""
PRELOADED_ENTRIES = 1_000
"""Entries read into memory for the first listener: enough for most clients that reconnect after a restart."""
MAX_BATCH = 500
WAKE_BATCH = 25
"""Listeners woken before other tasks get a turn."""
MAX_STORE_READERS = 8
"""Listeners that read the store at the same time: if all reconnect after a restart, the other threads stay free for requests."""

T = TypeVar("T")

log = structlog.get_logger()


class TooManyListeners(RetryLater):
    """The maximum number of streams is open."""


class LiveFeed:
    """Passes new ledger entries to listeners. One per console, on its event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent = RecentEntries()
        self.listeners = 0
        self._waiting: dict[str | None, dict[asyncio.Future[bool], None]] = {}
        """Listeners that wait for entries, by the job that they follow; None for all jobs."""
        self._readers = CapacityLimiter(MAX_STORE_READERS)
        self._starting = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def newest_position(self) -> int:
        """Read the position of the newest entry from the store."""
        return (await self._read_store(self._store.ledger.head)).position

    async def follow(
        self, position: int, *, job: str | None = None, wait: Callable[[], float]
    ) -> AsyncGenerator[Sequence[EntryView], None]:
        """Yield entries after a position as they arrive, and an empty batch after `wait()` seconds without entries.

        A position beyond the end of the ledger counts as the newest position: such a client has its position from another ledger, or from
        before a restore.
        """
        async with self._listener():
            seen = position
            if seen > self._recent.newest:
                # Do not use self._recent.newest: the store may have newer entries that were recorded before this listener came.
                seen = min(seen, await self.newest_position())
            recent = self._recent
            while True:
                if recent is not self._recent:
                    recent, seen = self._recent, min(seen, self._recent.common)
                newest = self._recent.newest
                entries: Sequence[EntryView] = ()
                if seen < newest and self._recent.covers(seen):
                    entries = self._recent.after(seen, job)
                elif seen < newest:
                    entries = (await self._read_store(partial(self._store.ledger.tail, seen, job=job, limit=MAX_BATCH))).entries
                seen = entries[-1].position if entries else max(seen, newest)
                if entries:
                    yield entries
                elif not await self._wait_for_news(seen, job, wait()):
                    yield ()

    async def close(self) -> None:
        """Stop reading the ledger."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _read_store(self, read: Callable[[], T]) -> T:
        return await to_thread.run_sync(read, limiter=self._readers)

    async def _wait_for_news(self, after: int, job: str | None, wait: float) -> bool:
        """Wait up to `wait` seconds for entries after the position; return whether there may be any."""
        if self._recent.newest > after:
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
            if self._task is None or self._task.done():
                await self._load()
                self._task = asyncio.create_task(self._poll())
            self.listeners += 1
        try:
            yield
        finally:
            self.listeners -= 1

    async def _load(self) -> None:
        """Read the newest entries into memory, and find the last one that was in memory before."""
        newest = await self.newest_position()
        begin = max(0, newest - PRELOADED_ENTRIES)
        tail = await self._read_store(lambda: self._store.ledger.tail(begin, limit=PRELOADED_ENTRIES))
        # Only listeners that are there already need it.
        common = (await self._read_store(partial(self._find_common, self._recent.entries)) if self.listeners else 0) or newest
        self._recent = RecentEntries(begin, common=common)
        self._recent.add(tail)

    def _find_common(self, known: Sequence[EntryView]) -> int:
        """Return the position of the last of these successive entries that the ledger still has; 0 if it has none."""
        stored = self._store.ledger.leaves(known[0].position - 1, known[-1].position) if known else ()
        same = takewhile(lambda pair: leaf_of(pair[0].hash) == pair[1], zip(known, stored, strict=False))
        return max((entry.position for entry, _ in same), default=0)

    async def _poll(self) -> None:
        """Read new entries until nobody listens. A thread waits for a change and reads it in the same call."""
        changes = self._store.open_change_feed()
        pool = ThreadPoolExecutor(1, "ledger")
        try:
            while self.listeners:
                pause = await self._poll_once(pool, changes)
                await asyncio.sleep(max(MIN_ROUND_INTERVAL_S, pause))
        finally:
            changes.close()
            pool.shutdown(wait=False)

    async def _poll_once(self, pool: ThreadPoolExecutor, changes: ChangeFeed) -> float:
        """Wait for new entries and wake the listeners that follow them; return how long to pause, in seconds."""
        try:
            tail = await asyncio.get_running_loop().run_in_executor(pool, self._read_news, changes)
            if tail.hash_before != self._recent.newest_hash:
                log.warning("the ledger is not the one that was read: the store was restored, or lost entries in a failover")
                await self._load()
                for news in [news for waiting in self._waiting.values() for news in waiting]:
                    _settle(news, found=True)
                return 0.0
        except RetryLater as error:
            log.warning("new ledger entries cannot be read now", error=str(error))
            return RETRY_INTERVAL_S
        except Exception as error:
            log.exception("new ledger entries could not be read", error=type(error).__name__)
            return RETRY_INTERVAL_S
        if not tail.entries:
            return 0.0
        # Measure processor time: with wall time, pauses would grow with the load of other processes.
        began = time.thread_time()
        self._recent.add(tail)
        waiting = [news for job in (None, *{entry.job for entry in tail.entries}) for news in self._waiting.pop(job, {})]
        for begin in range(0, len(waiting), WAKE_BATCH):
            for news in waiting[begin : begin + WAKE_BATCH]:
                _settle(news, found=True)
            await asyncio.sleep(0)
        return time.thread_time() - began

    def _read_news(self, changes: ChangeFeed) -> LedgerTail:
        changes.wait(POLL_INTERVAL_S)
        if changes.is_closed:
            return LedgerTail((), (), more=False, hash_before=self._recent.newest_hash)
        tail = self._store.ledger.tail(self._recent.newest, limit=MAX_BATCH)
        if tail.more:
            changes.skip_next_wait()
        return tail


class RecentEntries:
    """The newest entries, in order and without gaps."""

    def __init__(self, begin: int = 0, *, common: int = 0) -> None:
        self._begin = begin
        """Every entry after this position is in memory."""
        self.common = common
        """The last position whose entry was in memory before, too: listeners that are further ahead continue from here."""
        self.entries: list[EntryView] = []
        self._sizes: list[int] = []
        self._size = 0

    @property
    def newest(self) -> int:
        """The position of the last entry; without entries, the position after which the next entries begin."""
        return self.entries[-1].position if self.entries else self._begin

    @property
    def newest_hash(self) -> str | None:
        """The hash of the last entry; None without entries."""
        return self.entries[-1].hash if self.entries else None

    def covers(self, position: int) -> bool:
        """Whether every entry after a position is in memory."""
        return position >= self._begin

    def after(self, position: int, job: str | None) -> Sequence[EntryView]:
        """Return the entries after a position: all of one job, or at most MAX_BATCH of all jobs if `job` is None."""
        begin = bisect_right(self.entries, position, key=lambda entry: entry.position)
        if job is None:
            return self.entries[begin : begin + MAX_BATCH]
        return [entry for entry in self.entries[begin:] if entry.job == job]

    def add(self, tail: LedgerTail) -> None:
        """Append the next entries, and drop the oldest ones that exceed the limits."""
        self.entries += tail.entries
        self._sizes += tail.sizes
        self._size += sum(tail.sizes)
        count = max(0, len(self.entries) - MAX_RECENT_ENTRIES)
        size = self._size - sum(self._sizes[:count])
        while size > MAX_RECENT_BYTES:
            size -= self._sizes[count]
            count += 1
        if count:
            self._begin, self._size = self.entries[count - 1].position, size
            del self.entries[:count], self._sizes[:count]


def _settle(news: asyncio.Future[bool], *, found: bool) -> None:
    if not news.done():
        news.set_result(found)
