"""Moves one subscription through the ledger: its next batch, the outcomes, and when to retry. Keeps one batch in memory at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from anyio import to_thread

from console.outbox.senders import Sender, SenderNotReady
from justenough.adapters.store.outbox_queries import FailedDelivery, OutboxBatch, OutboxStatus, Settlement
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.integrations.retry_policy import DeliveryFault, DeliveryOutcome, SentNotice, next_attempt
from justenough.domain.integrations.triggers import Subscription
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps

MAX_CONCURRENCY = 8
"""Concurrent deliveries to one receiver."""
MAX_PENDING = 1_000
"""Deliveries that wait for a retry; while there are this many, no new entries are read from the ledger."""
NOT_READY_RETRY_S = 10.0
SAVE_POSITION_ENTRIES = 1_000
"""The position is saved after this many entries that are not for this subscription."""
SAVE_POSITION_INTERVAL_S = 5.0
"""The position is also saved after this time, if fewer than SAVE_POSITION_ENTRIES such entries have come."""

log = structlog.get_logger()


class LeaseLost(JustEnoughError):
    """Another console has the lease now."""


class SubscriptionWorker:
    """Delivers to one subscription, in ledger order except for retries."""

    def __init__(
        self, name: str, subscription: Subscription, sender: Sender, deps: Deps, *, holder: str, position: int, jitter: Callable[[], float]
    ) -> None:
        self.name = name
        self.subscription = subscription
        self._sender = sender
        self._deps = deps
        self._holder = holder
        self.position = self.saved_position = position
        """The last position read, and the last one saved."""
        self._saved_at = deps.ticks()
        self._jitter = jitter
        self._paused_at: datetime | None = None
        self._paused_until = 0.0
        """In ticks: the time of day may be set back."""
        self._is_full = False
        self._slots = asyncio.Semaphore(MAX_CONCURRENCY)

    def has_work(self, news: OutboxStatus, now: datetime) -> bool:
        """Whether there is something to deliver or save. A person who resends deliveries ends the receiver's pause."""
        resent_at = news.again.get(self.name)
        # Only once for each time that somebody resends: the receiver may ask for a pause again before all of them were tried.
        if resent_at is not None and self._paused_at is not None and resent_at > self._paused_at:
            self._paused_until = 0.0
        if self._is_paused():
            return False
        due = news.due.get(self.name)
        return (due is not None and due <= now) or (news.head > self.position and not self._is_full) or self._must_save_position()

    async def deliver_batch(self) -> bool:
        """Deliver the retries that are due, or else new entries; return whether there may be more. Raises LeaseLost, RetryLater."""
        now = self._deps.now()
        if self._is_paused():
            return False
        batch = await to_thread.run_sync(self._next_batch, now)
        if not batch.entries:
            await self._skip(batch)
            return False
        try:
            await self._sender.ready()
        except SenderNotReady as error:
            log.warning("events cannot be sent now", subscription=self.name, why=str(error))
            self.pause(NOT_READY_RETRY_S)
            await self._settle(Settlement(subscription=self.name, at=now, trouble=str(error)))
            return False
        outcomes = await self._send_batch(batch)
        if batch.position is not None and all(outcome.nothing for _, outcome in outcomes):
            await self._skip(batch)
            return True
        await self._settle(self._to_settlement(batch, outcomes))
        # Count again before the next batch. Otherwise nobody would: after a pause, there may be no due delivery that causes a count.
        self._is_full = False
        self.pause(max(outcome.rest for _, outcome in outcomes))
        return True

    def pause(self, seconds: float) -> None:
        self._paused_at = self._deps.now()
        self._paused_until = self._deps.ticks() + seconds

    def forget_unsaved_position(self) -> None:
        """Read again from the saved position: after a failover, other entries may have taken the positions that were read since."""
        self.position = self.saved_position

    def _is_paused(self) -> bool:
        return self._deps.ticks() < self._paused_until

    async def close(self) -> None:
        await self._sender.close()

    def _next_batch(self, now: datetime) -> OutboxBatch:
        outbox = self._deps.store.outbox
        due = outbox.due_batch(self.name, now=now, limit=self._sender.batch_size)
        if due.entries:
            return due
        self._is_full = outbox.count_pending(self.name) >= MAX_PENDING
        if self._is_full:
            return OutboxBatch(entries=())
        return outbox.next_batch(self.subscription.event_types, after=self.position, limit=self._sender.batch_size)

    async def _skip(self, batch: OutboxBatch) -> None:
        self.position = self.position if batch.position is None else batch.position
        if self._must_save_position():
            await self._settle(Settlement(subscription=self.name, at=self._deps.now(), position=self.position))

    def _must_save_position(self) -> bool:
        skipped = self.position - self.saved_position
        return skipped >= SAVE_POSITION_ENTRIES or (skipped > 0 and self._deps.ticks() - self._saved_at >= SAVE_POSITION_INTERVAL_S)

    async def _send_batch(self, batch: OutboxBatch) -> list[tuple[EntryView, DeliveryOutcome]]:
        """Send the entries of each job one after the other, and entries of different jobs concurrently; return the outcome of each."""
        outcomes: dict[int, tuple[EntryView, DeliveryOutcome]] = {}

        async def send_in_order(entries: list[EntryView]) -> None:
            for entry in entries:
                try:
                    async with self._slots:
                        outcome = await self._sender.send(entry)
                except RetryLater:
                    raise
                except Exception as error:
                    # One entry that cannot be sent, for whatever reason, must not delay the next.
                    log.exception("an event cannot be sent", subscription=self.name, event_id=entry.id)
                    why = f"the event cannot be sent ({type(error).__name__}); the console's log has the details"
                    outcome = DeliveryOutcome(DeliveryFault.REFUSED, why)
                outcomes[entry.position] = entry, outcome

        jobs: dict[str, list[EntryView]] = {}
        for entry in batch.entries:
            jobs.setdefault(entry.job, []).append(entry)
        async with asyncio.TaskGroup() as sends:
            for entries in jobs.values():
                sends.create_task(send_in_order(entries))
        return [outcomes[entry.position] for entries in jobs.values() for entry in entries]

    def _to_settlement(self, batch: OutboxBatch, outcomes: list[tuple[EntryView, DeliveryOutcome]]) -> Settlement:
        now = self._deps.now()
        # Within a batch a person may be notified, settled and notified again: only the last of these is recorded.
        sent: dict[tuple[str, str], SentNotice] = {}
        settled: dict[tuple[str, str], SentNotice] = {}
        for _, outcome in outcomes:
            for notices, added, removed in ((outcome.settled_notices, settled, sent), (outcome.sent_notices, sent, settled)):
                for notice in notices:
                    removed.pop((notice.about, notice.target), None)
                    added[notice.about, notice.target] = notice
        return Settlement(
            subscription=self.name,
            at=now,
            position=batch.position,
            entry_id=batch.entry_id,
            delivered=tuple(entry.position for entry, outcome in outcomes if outcome.fault is None and not outcome.nothing),
            dropped=tuple(entry.position for entry, outcome in outcomes if outcome.nothing),
            failed=tuple(self._failed_delivery(batch, entry, outcome, now) for entry, outcome in outcomes if outcome.fault is not None),
            sent_notices=tuple(sent.values()),
            settled_notices=tuple(settled.values()),
        )

    def _failed_delivery(self, batch: OutboxBatch, entry: EntryView, outcome: DeliveryOutcome, now: datetime) -> FailedDelivery:
        attempts = batch.attempts.get(entry.position, 0) + 1
        next_at = next_attempt(outcome, attempts=attempts, now=now, chance=self._jitter())
        fields = {"subscription": self.name, "event_id": entry.id, "attempts": attempts, "why": outcome.why}
        if next_at:
            log.info("an event was not delivered", **fields, again=str(next_at))
        else:
            log.warning("an event was not delivered and is now a dead letter", **fields, again=None)
        return FailedDelivery(entry=entry, attempts=attempts, next_at=next_at, why=outcome.why)

    async def _settle(self, settlement: Settlement) -> None:
        if not await to_thread.run_sync(lambda: self._deps.store.outbox.settle(settlement, holder=self._holder)):
            raise LeaseLost
        if settlement.position is not None:
            self.position = self.saved_position = settlement.position
            self._saved_at = self._deps.ticks()
