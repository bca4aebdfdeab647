"""Who delivers and what runs: one console holds a lease and gives each subscription a lane of its own, so that none waits for another's receiver."""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

import structlog
from anyio import to_thread

from console.outbox.senders import Sender, sender_for
from console.outbox.signing_secrets import SigningSecrets
from console.outbox.subscription_worker import READY_AGAIN, Lane, LeaseLost
from justenough.adapters.store.outbox_queries import News
from justenough.domain.core.errors import RetryLater
from justenough.domain.integrations.subscriptions import Subscription, Webhook
from justenough.services.dependencies import Deps

PAUSE = 0.5
"""Seconds between two looks for something to tell."""
LEASE = 15.0
"""Seconds after which another console takes over from one that is silent."""
RENEW = 5.0
"""Seconds after which a lease is renewed."""
KEEP_EVERY = 600.0
"""Seconds after which it is taken down again which subscriptions there are."""

log = structlog.get_logger()


class Office:
    """Delivers for as long as it holds the lease."""

    def __init__(self, deps: Deps, secrets: SigningSecrets, *, holder: str | None = None) -> None:
        self._deps = deps
        self._secrets = secrets
        self._holder = holder or uuid.uuid4().hex
        self._held_at: float | None = None
        self._kept: tuple[float, Mapping[str, str]] | None = None
        self._lanes: dict[str, Lane] = {}
        self._steps: dict[str, asyncio.Task[None]] = {}

    def sender(self, name: str, subscription: Subscription) -> Sender:
        """Return what tells a subscription."""
        return sender_for(name, subscription, self._deps, self._secrets)

    async def look(self) -> None:
        """Set each lane going that has something to tell, where the lease is ours. Raises RetryLater."""
        wanted = (await to_thread.run_sync(self._deps.config.current)).subscriptions
        if not wanted:
            await self.close()
            return
        if not await self._holds():
            return
        await self._keep(wanted)
        news, now = await to_thread.run_sync(self._deps.store.outbox.news), self._deps.now()
        await self._arrange(wanted, news)
        for name, lane in self._lanes.items():
            if name not in self._steps and lane.has_work(news, now):
                self._steps[name] = asyncio.create_task(self._run(lane))

    async def close(self) -> None:
        """Stop delivering, and let another console do it."""
        await self._stop()
        if self._held_at is not None:
            self._held_at = None
            with contextlib.suppress(RetryLater):
                await to_thread.run_sync(self._deps.store.outbox.let_go, self._holder)

    async def settled(self) -> None:
        """Return when no lane is at work."""
        while self._steps:
            await asyncio.gather(*self._steps.values(), return_exceptions=True)

    async def _holds(self) -> bool:
        if self._held_at is not None and self._deps.ticks() - self._held_at < RENEW:
            return True
        asked, now = self._deps.ticks(), self._deps.now()
        had = self._held_at is not None
        until = now + timedelta(seconds=LEASE)
        holds = await to_thread.run_sync(lambda: self._deps.store.outbox.hold(self._holder, now=now, until=until))
        self._held_at = asked if holds else None
        if holds != had:
            # Whoever had it meanwhile went on from where we were.
            await self._stop()
            log.info("this console delivers events" if holds else "another console delivers events")
        return holds

    async def _keep(self, wanted: Mapping[str, Subscription]) -> None:
        kinds = {name: "webhook" if isinstance(one, Webhook) else "notify" for name, one in wanted.items()}
        if self._kept is None or self._kept[1] != kinds or self._deps.ticks() - self._kept[0] >= KEEP_EVERY:
            now = self._deps.now()
            if await to_thread.run_sync(lambda: self._deps.store.outbox.keep(kinds, holder=self._holder, now=now)):
                self._kept = self._deps.ticks(), kinds

    async def _arrange(self, wanted: Mapping[str, Subscription], news: News) -> None:
        """Have a lane for each subscription as it is configured now."""
        for name in [name for name, lane in self._lanes.items() if wanted.get(name) != lane.subscription]:
            await self._drop(name)
        for name, subscription in wanted.items():
            if name not in self._lanes and name in news.positions:
                self._lanes[name] = Lane(
                    name,
                    subscription,
                    self.sender(name, subscription),
                    self._deps,
                    holder=self._holder,
                    position=news.positions[name],
                    chance=random.random,
                )

    async def _run(self, lane: Lane) -> None:
        try:
            while await lane.step():
                pass
        except LeaseLost:
            self._held_at = None
        except Exception as error:  # noqa: BLE001 - one lane's trouble, of whatever kind, must not keep the others from being told
            cause = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
            lane.rest(READY_AGAIN)
            log.warning("a subscription cannot be told now", subscription=lane.name, error=type(cause).__name__, why=str(cause)[:200])
        finally:
            self._steps.pop(lane.name, None)

    async def _stop(self) -> None:
        self._kept = None
        for name in tuple(self._lanes):
            await self._drop(name)

    async def _drop(self, name: str) -> None:
        task, lane = self._steps.get(name), self._lanes.pop(name)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await lane.close()


@contextlib.asynccontextmanager
async def delivering(office: Office) -> AsyncIterator[None]:
    """Deliver for as long as the console serves."""
    task = asyncio.create_task(_forever(office))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await office.close()


async def _forever(office: Office) -> None:
    while True:
        try:
            await office.look()
        except RetryLater as error:
            log.warning("events cannot be delivered now", error=str(error)[:200])
        except Exception as error:  # noqa: BLE001 - nobody else delivers: this goes on for as long as the console does
            log.warning("cannot look for events to deliver", error=type(error).__name__, why=str(error)[:200])
        await asyncio.sleep(PAUSE)
