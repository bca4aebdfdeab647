"""The ledger as a live stream: one task looks for new entries and wakes every listener. Decides nothing about who may see what."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence

import structlog
from anyio import to_thread

from activities.store import Store
from justenough.errors import RetryLater
from justenough.views import EntryView

PAUSE = 0.2
"""Seconds between two looks, while someone listens."""
RECENT = 5_000
"""Entries kept at hand; a listener further behind reads the store itself."""
BATCH = 500

log = structlog.get_logger()


class Feed:
    """Tells listeners of new ledger entries. One per console, on its event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recent: deque[EntryView] = deque(maxlen=RECENT)
        self._position: int | None = None
        """Of the newest entry seen; None while nobody listens."""
        self._listeners = 0
        self._news = asyncio.Condition()
        self._task: asyncio.Task[None] | None = None

    async def after(self, position: int | None, *, job: str | None = None, wait: float) -> AsyncGenerator[Sequence[EntryView], None]:
        """Yield entries after a position (None: from now on) as they come; an empty batch whenever `wait` seconds brought nothing."""
        async with self._listening():
            # Not the position looked up last: what came since then was there before this listener.
            seen = await self._newest() if position is None else position
            while True:
                newest = self._position or 0
                entries = await self._next(seen, job)
                seen = entries[-1].position if entries else max(seen, newest)
                if entries:
                    yield entries
                elif not await self._woken(seen, wait):
                    yield ()

    async def close(self) -> None:
        """Stop looking."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _next(self, seen: int, job: str | None) -> Sequence[EntryView]:
        if seen >= (self._position or 0):
            return ()
        if self._recent and seen >= self._recent[0].position - 1:
            return [entry for entry in self._recent if entry.position > seen and job in {None, entry.job}]
        return await self._read(seen, job)

    async def _read(self, seen: int, job: str | None = None) -> Sequence[EntryView]:
        page = await to_thread.run_sync(lambda: self._store.ledger(job=job, after=seen, limit=BATCH))
        return page.items

    async def _newest(self) -> int:
        return (await to_thread.run_sync(self._store.head)).position

    async def _woken(self, seen: int, wait: float) -> bool:
        async with self._news:
            try:
                await asyncio.wait_for(self._news.wait_for(lambda: (self._position or 0) > seen), wait)
            except TimeoutError:
                return False
        return True

    @contextlib.asynccontextmanager
    async def _listening(self) -> AsyncIterator[None]:
        if self._position is None:
            newest = await self._newest()
            # Another listener may have come meanwhile; moving its position would leave a hole behind it.
            if self._position is None:
                self._position = newest
        self._listeners += 1
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        try:
            yield
        finally:
            self._listeners -= 1

    async def _look(self) -> None:
        while self._listeners:
            try:
                await self._take()
            except RetryLater as error:
                log.warning("the ledger cannot be followed now", error=str(error))
            await asyncio.sleep(PAUSE)
        self._position = None
        self._recent.clear()

    async def _take(self) -> None:
        entries = await self._read(self._position or 0)
        if entries:
            async with self._news:
                self._recent.extend(entries)
                self._position = entries[-1].position
                self._news.notify_all()
