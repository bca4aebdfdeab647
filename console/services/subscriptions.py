"""Webhooks and notifications: the state of each subscription, resending dead letters, and testing a subscription."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import structlog
from anyio import to_thread

from console.auth.authorization import Caller
from console.services.console import Console
from justenough.adapters.configuration.folder import NoConfiguration
from justenough.adapters.store.outbox_queries import SubscriptionProgress, lag_of
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import Conflict, NotFound
from justenough.domain.integrations.triggers import Subscription, Webhook

log = structlog.get_logger()


class SubscriptionView(Message):
    """A webhook or notification, and the state of its deliveries."""

    name: str
    kind: str
    """webhook | notify"""
    to: tuple[str, ...]
    """The URL of a webhook; for a notification, the Vault paths of its receivers."""
    events: tuple[str, ...]
    tiers: tuple[int, ...] = ()
    state: str
    """ok | failing | new (no console has started to deliver it yet) | removed (no longer configured) | unknown (this console has not read a valid
    configuration since it started)"""
    why: str | None = None
    """Why the last attempt failed, if it did."""
    lag_seconds: int = 0
    """Age of the oldest event that is not delivered yet, not counting dead letters."""
    pending: int = 0
    dead: int = 0
    delivered: int = 0
    delivered_at: datetime | None = None
    failed_at: datetime | None = None

    @classmethod
    def of(
        cls, name: str, configured: Subscription | None, progress: SubscriptionProgress | None, *, now: datetime, absent: str
    ) -> SubscriptionView:
        """Return the view of a subscription that is configured, has deliveries, or both. `absent`: the state of one that is not configured."""
        figures = progress.model_dump(include={"why", "pending", "dead", "delivered", "delivered_at", "failed_at"}) if progress else {}
        hook = configured if isinstance(configured, Webhook) else None
        notify = None if configured is None or isinstance(configured, Webhook) else configured
        state = absent if configured is None else "new" if progress is None else "ok" if progress.why is None else "failing"
        return cls(
            name=name,
            kind=progress.kind if progress else "webhook" if hook else "notify",
            to=(hook.url,) if hook else notify.to if notify else (),
            events=hook.events if hook else notify.on if notify else (),
            tiers=notify.tiers if notify else (),
            state=state,
            lag_seconds=round(lag_of(progress, now)) if progress and state != "removed" else 0,
            **figures,
        )


class Tested(Message):
    """The result of a test."""

    subscription: str
    arrived: bool
    detail: str


async def send_test(console: Console, name: str, caller: Caller) -> Tested:
    """Send one test event now, and return the result. Raises NotFound, Conflict, NoConfiguration."""
    sender = console.dispatcher.sender(name, await configured_subscription(console, name))
    try:
        await sender.ready()
        outcome = await sender.test(console.deps.now(), caller.person.name)
    finally:
        await sender.close()
    return Tested(subscription=name, arrived=outcome.fault is None, detail=outcome.why or "the receiver accepted it")


async def resend_deliveries(console: Console, name: str, ids: Sequence[str] | None, *, by: Caller) -> int:
    """Queue dead letters again, all of them if `ids` is None; return how many. Raises NotFound, Conflict, NoConfiguration."""
    await configured_subscription(console, name)
    count = await to_thread.run_sync(lambda: console.deps.store.outbox.resend(name, ids, now=console.deps.now()))
    log.info("dead letters will be sent again", subscription=name, count=count, by=by.person.name)
    return count


async def find_subscription(console: Console, name: str) -> SubscriptionView:
    """Return a subscription with its state. Raises NotFound."""
    view = (await subscription_views(console)).get(name)
    if view is None:
        raise NotFound(f"there is no webhook or notification {name}")
    return view


async def configured_subscription(console: Console, name: str) -> Subscription:
    """Return a subscription that is still configured. Raises NotFound, Conflict, NoConfiguration."""
    await find_subscription(console, name)
    subscription = (await to_thread.run_sync(console.deps.config.require)).subscriptions.get(name)
    if subscription is None:
        raise Conflict(f"{name} is no longer in triggers.yaml; add it there to send events to it again")
    return subscription


async def subscription_views(console: Console) -> dict[str, SubscriptionView]:
    """Return each subscription with its state, by name."""
    try:
        configured, absent = (await to_thread.run_sync(console.deps.config.require)).subscriptions, "removed"
    except NoConfiguration:
        configured, absent = {}, "unknown"
    progress = {item.name: item for item in await to_thread.run_sync(console.deps.store.outbox.subscription_progress)}
    now = console.deps.now()
    names = sorted({*configured, *progress})
    return {name: SubscriptionView.of(name, configured.get(name), progress.get(name), now=now, absent=absent) for name in names}
