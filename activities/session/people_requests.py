"""People's requests about running jobs: stop, revoke a credential, withdraw an approval.

A worker's watch reads them from the store, so that a session gets a request even if Temporal is down or somebody floods the job's workflow
with signals. A job's RequestedRevocations revoke single credentials while the job runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

import structlog

from activities.issuing.issuer import Issuer
from activities.issuing.lease_keeper import LeaseKeeper
from justenough.adapters.store import Store
from justenough.domain.core.errors import NotFound, RetryLater
from justenough.domain.ledger.events import EventType
from justenough.domain.readmodel.views import EntryView
from justenough.services.count_answers import count_withdrawal
from justenough.services.dependencies import Deps
from justenough.services.job_history import read_entries

POLL_INTERVAL_S = 0.5
"""Seconds between two reads of the ledger's news: one read serves all sessions of the worker."""
RETRY_INTERVAL_S = 2.0
"""Seconds between two attempts to examine a withdrawal while Vault does not answer, or to revoke a credential that was just issued."""
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
            except Exception as error:  # noqa: BLE001 - while the store is unreachable, signals are the only path
                if not fails:
                    log.warning("requests about jobs cannot be read; only signals reach sessions", error=type(error).__name__)
                # After a failover the store may lack its newest entries, and new entries may have taken their positions: read every request again.
                position, fails = None, True
                self._new.update(self._sessions)
            await asyncio.sleep(POLL_INTERVAL_S)

    def _pass_on(self, entries: Iterable[EntryView]) -> None:
        for entry in entries:
            if receive := self._sessions.get(entry.job):
                receive(entry)


class RequestedRevocations:
    """The revocations that people request for one job, as ledger entries. Entries wait in a queue until the job's leases are kept."""

    def __init__(self, deps: Deps, job: str, issuer: Issuer) -> None:
        self._deps = deps
        self._job = job
        self._issuer = issuer
        self._entries: asyncio.Queue[EntryView] = asyncio.Queue()

    def add(self, entry: EntryView) -> None:
        """Add a request; the same one may come again."""
        self._entries.put_nowait(entry)

    async def serve(self, lease_keeper: LeaseKeeper) -> None:
        """Serve each request once, in a separate task, until cancelled: a target that hangs must not keep the others waiting."""
        served: set[str] = set()
        async with asyncio.TaskGroup() as tasks:
            while True:
                entry = await self._entries.get()
                if entry.id not in served:
                    served.add(entry.id)
                    tasks.create_task(self._serve_one(entry, lease_keeper))

    async def _serve_one(self, entry: EntryView, lease_keeper: LeaseKeeper) -> None:
        """Raise nothing: an entry that cannot be served must not keep others from being served."""
        name, withdrawn = entry.data.get("name"), None
        try:
            if entry.type == EventType.WITHDRAWAL_REQUESTED and (withdrawn := await self._count_withdrawal(entry)) is None:
                return
            why = f"its approval was withdrawn by {name}" if withdrawn else f"its revocation was requested by {name}"
            named = entry.data.get("credential")
            ending = [item.id for item in self._issuer.holdings.alive if item.request_id == withdrawn or item.id == named]
            await asyncio.gather(*(self._revoke_credential(credential, why, lease_keeper) for credential in ending), return_exceptions=True)
        except Exception:
            log.exception("a request about the job could not be served", job=self._job, entry=entry.id)

    async def _revoke_credential(self, credential: str, why: str, lease_keeper: LeaseKeeper) -> None:
        while any(item.id == credential for item in self._issuer.holdings.alive):
            with suppress(NotFound):
                await lease_keeper.revoke_credential(credential, why)
                return
            # It was issued a moment ago, and its lease is not kept yet. If another revocation has ended it, it is not alive any more.
            await asyncio.sleep(RETRY_INTERVAL_S)

    async def _count_withdrawal(self, entry: EntryView) -> str | None:
        while True:
            try:
                return await asyncio.to_thread(count_withdrawal, self._deps, self._job, entry)
            except RetryLater as error:
                log.warning("a withdrawal could not be examined yet", job=self._job, error=type(error).__name__)
                await asyncio.sleep(RETRY_INTERVAL_S)
