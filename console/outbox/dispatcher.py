"""Decides which console delivers, and runs its deliveries. The console with the lease runs one worker per subscription, so that receivers do not delay each other."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import Mapping
from datetime import timedelta

import structlog
from anyio import to_thread

from console.auth.vault_keys import SigningSecrets
from console.concurrency.loops import repeat
from console.outbox.senders import NotifySender, Sender, WebhookSender
from console.outbox.subscription_worker import NOT_READY_RETRY_S, LeaseLost, SubscriptionWorker
from justenough.adapters.store.outbox_queries import OutboxStatus
from justenough.domain.core.errors import RetryLater
from justenough.domain.integrations.triggers import Subscription, Webhook
from justenough.services.dependencies import Deps

POLL_INTERVAL_S = 0.5
LEASE_TTL_S = 15.0
"""If a console has not renewed its lease for this long, another console takes over."""
LEASE_RENEW_INTERVAL_S = 5.0
REGISTER_INTERVAL_S = 600.0

log = structlog.get_logger()


class Dispatcher:
    """Delivers events while it holds the lease."""

    def __init__(self, deps: Deps, secrets: SigningSecrets) -> None:
        self._deps = deps
        self._secrets = secrets
        self._holder = uuid.uuid4().hex
        self._lease_held_at: float | None = None
        self._registered: tuple[float, Mapping[str, str]] | None = None
        self._workers: dict[str, SubscriptionWorker] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    def sender(self, name: str, subscription: Subscription) -> Sender:
        if isinstance(subscription, Webhook):
            return WebhookSender(name, subscription, self._deps, self._secrets)
        return NotifySender(name, subscription, self._deps)

    async def run(self) -> None:
        await repeat(self.dispatch, every_s=POLL_INTERVAL_S, failure="events cannot be delivered now")

    async def dispatch(self) -> None:
        """If this console has the lease, start each worker that has something to deliver. Raises RetryLater."""
        subscriptions = (await to_thread.run_sync(self._deps.config.current)).subscriptions
        if not subscriptions:
            await self.close()
            return
        try:
            if not await self._hold_lease():
                return
            kinds = {name: "webhook" if isinstance(configured, Webhook) else "notify" for name, configured in subscriptions.items()}
            if self._registered is None or self._registered[1] != kinds or self._deps.ticks() - self._registered[0] >= REGISTER_INTERVAL_S:
                now = self._deps.now()
                if await to_thread.run_sync(lambda: self._deps.store.outbox.keep_subscriptions(kinds, holder=self._holder, now=now)):
                    self._registered = self._deps.ticks(), kinds
            # Note the positions before the store is read, because running workers go on in the meantime.
            known = {name: (worker.saved_position, worker.position) for name, worker in self._workers.items()}
            news, now = await to_thread.run_sync(self._deps.store.outbox.status), self._deps.now()
        except RetryLater:
            # The store may have lost the registration, too.
            self._registered = None
            # What is being sent goes on: otherwise, each failure of the store would send it again. Recording it as sent fails if the ledger has
            # other entries by then.
            for worker in self._workers.values():
                worker.forget_unsaved_position()
            raise
        if any(news.positions.get(name, -1) < saved or news.head < read for name, (saved, read) in known.items()):
            log.warning("the store's ledger is shorter than before; events are delivered from the positions that it knows")
            await self._remove_workers()
            return
        await self._update_workers(subscriptions, news)
        for name, worker in self._workers.items():
            if name not in self._running and worker.has_work(news, now):
                self._running[name] = asyncio.create_task(self._run_worker(worker))

    async def close(self) -> None:
        """Stop delivering and release the lease."""
        await self._remove_workers()
        if self._lease_held_at is not None:
            self._lease_held_at = None
            with contextlib.suppress(RetryLater):
                await to_thread.run_sync(self._deps.store.outbox.release_lease, self._holder)

    async def _hold_lease(self) -> bool:
        """Acquire or renew the lease if that is due; return whether this console has it."""
        if self._lease_held_at is not None and self._deps.ticks() - self._lease_held_at < LEASE_RENEW_INTERVAL_S:
            return True
        began, now = self._deps.ticks(), self._deps.now()
        had_lease = self._lease_held_at is not None
        until = now + timedelta(seconds=LEASE_TTL_S)
        has_lease = await to_thread.run_sync(lambda: self._deps.store.outbox.acquire_lease(self._holder, now=now, until=until))
        self._lease_held_at = began if has_lease else None
        if has_lease != had_lease:
            # A console that had the lease in the meantime has changed the positions.
            await self._remove_workers()
            log.info("this console delivers events" if has_lease else "another console delivers events")
        return has_lease

    async def _update_workers(self, subscriptions: Mapping[str, Subscription], news: OutboxStatus) -> None:
        """Keep exactly one worker per subscription, with its current configuration."""
        for name in [name for name, worker in self._workers.items() if subscriptions.get(name) != worker.subscription]:
            await self._remove_worker(name)
        for name, subscription in subscriptions.items():
            if name not in self._workers and name in news.positions:
                self._workers[name] = SubscriptionWorker(
                    name,
                    subscription,
                    self.sender(name, subscription),
                    self._deps,
                    holder=self._holder,
                    position=min(news.positions[name], news.head),
                    jitter=random.random,
                )

    async def _run_worker(self, worker: SubscriptionWorker) -> None:
        try:
            while await worker.deliver_batch():
                pass
        except LeaseLost:
            self._lease_held_at = None
        except Exception as error:  # noqa: BLE001 - a failure of one subscription must not stop the others
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            worker.forget_unsaved_position()
            worker.pause(NOT_READY_RETRY_S)
            log.warning(
                "events of a subscription cannot be delivered now",
                subscription=worker.name,
                error=type(cause).__name__,
                why=str(cause)[:200],
            )
        finally:
            self._running.pop(worker.name, None)

    async def _remove_workers(self) -> None:
        self._registered = None
        for name in tuple(self._workers):
            await self._remove_worker(name)

    async def _remove_worker(self, name: str) -> None:
        task, worker = self._running.get(name), self._workers.pop(name)
        try:
            if task is not None:
                task.cancel()
                # Awaiting the task would confuse its cancellation with that of this dispatcher.
                await asyncio.wait({task})
        finally:
            await worker.close()
