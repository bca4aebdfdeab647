"""Passes people's requests about running jobs to the sessions of a worker: stop, revoke a credential, withdraw an approval.

Reads the store, so that a session gets a request even if Temporal is down or somebody floods the job's workflow with signals.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog

from justenough.adapters.store import Store
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import EntryView
from justenough.services.job_history import read_entries

POLL_INTERVAL_S = 0.5
"""Seconds between two reads of the ledger's news: one read serves all sessions of the worker."""
REQUEST_TYPES = (EventType.STOP_REQUESTED, EventType.REVOCATION_REQUESTED, EventType.WITHDRAWAL_REQUESTED)
log = structlog.get_logger()

Receive = Callable[[EntryView], None]


class RequestWatch:
    """The watch of one worker. It reads only while sessions run."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sessions: dict[str, Receive] = {}
        self._new: set[str] = set()
        """Jobs whose requests from before the watch have not been read yet."""
        self._reading: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, job: str, receive: Receive) -> AsyncIterator[None]:
        """Call `receive` on this event loop with each request about a job until the block ends, including requests made before.

        The same request may be passed on twice.
        """
        self._sessions[job] = receive
        self._new.add(job)
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        try:
            yield
        finally:
            del self._sessions[job]
            self._new.discard(job)
            if not self._sessions:
                self._reading.cancel()
                self._reading = None

    async def _read(self) -> None:
        ledger, position, fails = self._store.ledger, None, False
        while True:
            try:
                if position is None:
                    position = (await asyncio.to_thread(ledger.head)).position
                for job in tuple(self._new):
                    past = await asyncio.to_thread(read_entries, ledger, job, types=REQUEST_TYPES)
                    self._pass_on(past.items)
                    self._new.discard(job)
                news, position = await asyncio.to_thread(ledger.news, position, types=REQUEST_TYPES)
                self._pass_on(news)
                fails = False
            except Exception as error:  # noqa: BLE001 - while the store is away, signals are the only path
                if not fails:
                    log.warning("requests about jobs cannot be read; only signals reach sessions", error=type(error).__name__)
                fails = True
            await asyncio.sleep(POLL_INTERVAL_S)

    def _pass_on(self, entries: Iterable[EntryView]) -> None:
        for entry in entries:
            if receive := self._sessions.get(entry.job):
                receive(entry)
