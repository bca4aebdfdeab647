"""Outgoing events: the state of each webhook and notification, failed deliveries, and sending them again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

import structlog
from anyio import to_thread
from fastapi import APIRouter, Path, Query

from console.api.dependencies import Approver, AuthenticatedRoute, Reader
from console.auth.authorization import Caller
from console.http.dependencies import Cursor, Limit, TheConsole
from console.http.problems import problem_responses
from console.services.console import Console
from justenough.adapters.store.outbox_queries import DeliveryState, SubscriptionProgress, lag_of
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import Conflict, NotFound
from justenough.domain.integrations.subscriptions import Subscription, Webhook
from justenough.domain.readmodel.views import DeliveryView, Page

Name = Annotated[str, Path(max_length=63, description="Name of a webhook or a notification")]
Id = Annotated[str, Path(max_length=64)]

log = structlog.get_logger()

router = APIRouter(route_class=AuthenticatedRoute, tags=["webhooks"])


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
    """ok | failing | new (no console has started to deliver it yet) | removed (no longer configured)"""
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
    def of(cls, name: str, configured: Subscription | None, progress: SubscriptionProgress | None, *, now: datetime) -> SubscriptionView:
        """Return the view of a subscription that is configured, has deliveries, or both."""
        figures = progress.model_dump(include={"why", "pending", "dead", "delivered", "delivered_at", "failed_at"}) if progress else {}
        hook = configured if isinstance(configured, Webhook) else None
        notify = None if configured is None or isinstance(configured, Webhook) else configured
        state = "removed" if configured is None else "new" if progress is None else "ok" if progress.why is None else "failing"
        return cls(
            name=name,
            kind=progress.kind if progress else "webhook" if hook else "notify",
            to=(hook.url,) if hook else notify.to if notify else (),
            events=hook.events if hook else notify.on if notify else (),
            tiers=notify.tiers if notify else (),
            state=state,
            lag_seconds=round(lag_of(progress, now)) if progress and configured else 0,
            **figures,
        )


class Resent(Message):
    """The number of dead letters that will be sent again."""

    subscription: str
    resent: int


class Tested(Message):
    """The result of a test."""

    subscription: str
    arrived: bool
    detail: str


@router.get("/webhooks")
async def list_webhooks(console: TheConsole, _: Reader) -> Page[SubscriptionView]:
    """List webhooks and notifications by name."""
    return Page(items=tuple((await _subscription_views(console)).values()))


@router.get("/webhooks/{name}/deliveries")
async def list_deliveries(
    name: Name,
    console: TheConsole,
    _: Reader,
    state: Annotated[DeliveryState | None, Query(description="Only deliveries that wait for another attempt, or only dead letters")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Page[DeliveryView]:
    """List failed deliveries, the newest event first. Successful ones are not recorded."""
    await _find_subscription(console, name)
    return await to_thread.run_sync(lambda: console.deps.store.outbox.deliveries(name, state=state, limit=limit, cursor=cursor))


@router.post(
    "/webhooks/{name}/deliveries/{delivery}/resend", operation_id="resend_delivery", status_code=202, responses=problem_responses(409)
)
async def resend(name: Name, delivery: Id, console: TheConsole, caller: Approver) -> Resent:
    """Send one dead letter again, with all its attempts."""
    await _configured_subscription(console, name)
    count = await _resend_deliveries(console, name, [delivery], by=caller)
    if not count:
        raise NotFound(f"{name} has no dead letter {delivery}")
    return Resent(subscription=name, resent=count)


@router.post("/webhooks/{name}/resend", operation_id="resend_dead_letters", status_code=202, responses=problem_responses(409))
async def resend_all(name: Name, console: TheConsole, caller: Approver) -> Resent:
    """Send all its dead letters again."""
    await _configured_subscription(console, name)
    return Resent(subscription=name, resent=await _resend_deliveries(console, name, None, by=caller))


@router.post("/webhooks/{name}/test", operation_id="test_webhook", responses=problem_responses(409))
async def test(name: Name, console: TheConsole, caller: Approver) -> Tested:
    """Send one test event now, and return the result."""
    sender = console.dispatcher.sender(name, await _configured_subscription(console, name))
    try:
        await sender.ready()
        outcome = await sender.test(console.deps.now(), caller.person.name)
    finally:
        await sender.close()
    return Tested(subscription=name, arrived=outcome.fault is None, detail=outcome.why or "the receiver accepted it")


async def _resend_deliveries(console: Console, name: str, ids: Sequence[str] | None, *, by: Caller) -> int:
    count = await to_thread.run_sync(lambda: console.deps.store.outbox.resend(name, ids, now=console.deps.now()))
    log.info("dead letters will be sent again", subscription=name, count=count, by=by.person.name)
    return count


async def _find_subscription(console: Console, name: str) -> SubscriptionView:
    view = (await _subscription_views(console)).get(name)
    if view is None:
        raise NotFound(f"there is no webhook or notification {name}")
    return view


async def _configured_subscription(console: Console, name: str) -> Subscription:
    await _find_subscription(console, name)
    subscription = (await to_thread.run_sync(console.deps.config.current)).subscriptions.get(name)
    if subscription is None:
        raise Conflict(f"{name} is no longer in triggers.yaml; add it there to send events to it again")
    return subscription


async def _subscription_views(console: Console) -> dict[str, SubscriptionView]:
    configured = (await to_thread.run_sync(console.deps.config.current)).subscriptions
    progress = {item.name: item for item in await to_thread.run_sync(console.deps.store.outbox.subscription_progress)}
    now = console.deps.now()
    return {name: SubscriptionView.of(name, configured.get(name), progress.get(name), now=now) for name in sorted({*configured, *progress})}
