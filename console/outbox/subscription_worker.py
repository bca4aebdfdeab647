"""One subscription's way through the ledger: what is next for it, what became of it, when again. One step at a time; holds one batch and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

import structlog
from anyio import to_thread

from console.outbox.senders import Sender, SenderNotReady
from justenough.adapters.store.outbox_queries import FailedDelivery, OutboxBatch, OutboxStatus, Settlement
from justenough.domain.core.errors import JustEnoughError, RetryLater
from justenough.domain.integrations.retry_policy import DeliveryFault, DeliveryOutcome, SentNotice, next_attempt
from justenough.domain.integrations.subscriptions import Subscription
from justenough.domain.readmodel.views import EntryView
from justenough.services.dependencies import Deps

MAX_CONCURRENCY = 8
"""Deliveries to one receiver that are on their way at once."""
MAX_PENDING = 1_000
"""Deliveries that wait for another attempt; while there are so many, the rest stays in the ledger."""
NOT_READY_RETRY_S = 10.0
"""Seconds until it is looked again whether we can send."""
SAVE_POSITION_ENTRIES = 1_000
"""Entries that are nothing for it, after which that is taken down."""
SAVE_POSITION_INTERVAL_S = 5.0
"""Seconds after which fewer are."""

log = structlog.get_logger()


class LeaseLost(JustEnoughError):
    """Another console delivers now."""


class SubscriptionWorker:
    """Tells one subscription, in the ledger's order as far as its receiver takes what it is sent."""

    def __init__(
        self, name: str, subscription: Subscription, sender: Sender, deps: Deps, *, holder: str, position: int, jitter: Callable[[], float]
    ) -> None:
        self.name = name
        self.subscription = subscription
        self._sender = sender
        self._deps = deps
        self._holder = holder
        self._position = self._saved_position = position
        """Up to where it was looked, and up to where that is taken down."""
        self._saved_at = deps.ticks()
        self._jitter = jitter
        self._paused_until: datetime | None = None
        self._is_full = False
        self._slots = asyncio.Semaphore(MAX_CONCURRENCY)

    def has_work(self, news: OutboxStatus, now: datetime) -> bool:
        """Whether a step would find something. What somebody had sent again does not wait until the receiver's rest is over."""
        if self.name in news.again:
            self._paused_until = None
        if self._paused_until is not None and now < self._paused_until:
            return False
        due = news.due.get(self.name)
        return (due is not None and due <= now) or (news.head > self._position and not self._is_full) or self._must_save_position()

    async def deliver_batch(self) -> bool:
        """Tell what is due, or else what is new; return whether there may be more at once. Raises LeaseLost, RetryLater."""
        now = self._deps.now()
        if self._paused_until is not None and now < self._paused_until:
            return False
        batch = await to_thread.run_sync(self._next_batch, now)
        if not batch.entries:
            await self._skip(batch)
            return False
        try:
            await self._sender.ready()
        except SenderNotReady as error:
            await self._hold_back(str(error), now)
            return False
        outcomes = await self._send_batch(batch)
        if batch.position is not None and all(outcome.nothing for _, outcome in outcomes):
            await self._skip(batch)
            return True
        await self._settle(self._to_settlement(batch, outcomes))
        self.pause(max(outcome.rest for _, outcome in outcomes))
        return True

    def pause(self, seconds: float) -> None:
        """Do nothing for so long."""
        self._paused_until = self._deps.now() + timedelta(seconds=seconds)

    async def close(self) -> None:
        """Close what it sends with."""
        await self._sender.close()

    def _next_batch(self, now: datetime) -> OutboxBatch:
        outbox = self._deps.store.outbox
        due = outbox.due_batch(self.name, now=now, limit=self._sender.batch_size)
        if due.entries:
            return due
        self._is_full = outbox.count_pending(self.name) >= MAX_PENDING
        if self._is_full:
            return OutboxBatch(entries=())
        return outbox.next_batch(self.subscription.event_types, after=self._position, limit=self._sender.batch_size)

    async def _skip(self, batch: OutboxBatch) -> None:
        self._position = self._position if batch.position is None else batch.position
        if self._must_save_position():
            await self._settle(Settlement(subscription=self.name, at=self._deps.now(), position=self._position))

    def _must_save_position(self) -> bool:
        skipped = self._position - self._saved_position
        return skipped >= SAVE_POSITION_ENTRIES or (skipped > 0 and self._deps.ticks() - self._saved_at >= SAVE_POSITION_INTERVAL_S)

    async def _send_batch(self, batch: OutboxBatch) -> list[tuple[EntryView, DeliveryOutcome]]:
        """Tell of each job's entries one after the other, and of several jobs at once."""
        jobs: dict[str, list[EntryView]] = {}
        for entry in batch.entries:
            jobs.setdefault(entry.job, []).append(entry)
        async with asyncio.TaskGroup() as sends:
            tasks = [sends.create_task(self._send_in_order(entries)) for entries in jobs.values()]
        return [told for task in tasks for told in task.result()]

    async def _send_in_order(self, entries: list[EntryView]) -> list[tuple[EntryView, DeliveryOutcome]]:
        return [(entry, await self._send(entry)) for entry in entries]

    async def _send(self, entry: EntryView) -> DeliveryOutcome:
        async with self._slots:
            try:
                return await self._sender.send(entry)
            except RetryLater:
                raise
            except Exception as error:
                # One entry that cannot be told, for whatever reason, must not keep the next from being told.
                log.exception("an event cannot be told", subscription=self.name, event_id=entry.id)
                return DeliveryOutcome(DeliveryFault.REFUSED, f"it cannot be told ({type(error).__name__}); the console's log says why")

    def _to_settlement(self, batch: OutboxBatch, outcomes: list[tuple[EntryView, DeliveryOutcome]]) -> Settlement:
        now = self._deps.now()
        failed = tuple(self._failed_delivery(batch, entry, outcome, now) for entry, outcome in outcomes if outcome.fault is not None)
        told, untold = _net_recipients(outcome for _, outcome in outcomes)
        return Settlement(
            subscription=self.name,
            at=now,
            position=batch.position,
            delivered=tuple(entry.position for entry, outcome in outcomes if outcome.fault is None and not outcome.nothing),
            dropped=tuple(entry.position for entry, outcome in outcomes if outcome.nothing),
            failed=failed,
            told=told,
            untold=untold,
        )

    def _failed_delivery(self, batch: OutboxBatch, entry: EntryView, outcome: DeliveryOutcome, now: datetime) -> FailedDelivery:
        attempts = batch.attempts.get(entry.position, 0) + 1
        again = next_attempt(outcome, attempts=attempts, now=now, chance=self._jitter())
        tell = log.info if again else log.warning
        what = "an event was not delivered" if again else "an event was not delivered, and is a dead letter now"
        tell(what, subscription=self.name, event_id=entry.id, attempts=attempts, why=outcome.why, again=str(again) if again else None)
        return FailedDelivery(entry=entry, attempts=attempts, next_at=again, why=outcome.why)

    async def _settle(self, settlement: Settlement) -> None:
        if not await to_thread.run_sync(lambda: self._deps.store.outbox.settle(settlement, holder=self._holder)):
            raise LeaseLost
        if settlement.position is not None:
            self._position = self._saved_position = settlement.position
            self._saved_at = self._deps.ticks()

    async def _hold_back(self, why: str, now: datetime) -> None:
        log.warning("nothing can be delivered now", subscription=self.name, why=why)
        self.pause(NOT_READY_RETRY_S)
        await self._settle(Settlement(subscription=self.name, at=now, trouble=why))


def _net_recipients(outcomes: Iterable[DeliveryOutcome]) -> tuple[tuple[SentNotice, ...], tuple[SentNotice, ...]]:
    """Return who is told of something once all is done, and who is no longer: within a batch somebody may be told, released and told again."""
    told: dict[tuple[str, str], SentNotice] = {}
    untold: dict[tuple[str, str], SentNotice] = {}
    for outcome in outcomes:
        for one in outcome.untold:
            told.pop((one.about, one.target), None)
            untold[one.about, one.target] = one
        for one in outcome.told:
            untold.pop((one.about, one.target), None)
            told[one.about, one.target] = one
    return tuple(told.values()), tuple(untold.values())
