"""Outgoing events: the state of each webhook and notification, failed deliveries, and sending them again."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query

from console.api.dependencies import Approver, AuthenticatedRoute, Reader
from console.http.dependencies import Cursor, Limit, TheConsole
from console.http.problems import problem_responses
from console.services import subscriptions
from console.services.subscriptions import SubscriptionView, Tested
from justenough.adapters.store.outbox_queries import DeliveryState
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import NotFound
from justenough.domain.readmodel.views import DeliveryView, Page

Name = Annotated[str, Path(max_length=63, description="Name of a webhook or a notification")]
Id = Annotated[str, Path(max_length=64)]

router = APIRouter(route_class=AuthenticatedRoute, tags=["webhooks"])


class Resent(Message):
    """The number of dead letters that will be sent again."""

    subscription: str
    resent: int


@router.get("/webhooks")
async def list_webhooks(console: TheConsole, _: Reader) -> Page[SubscriptionView]:
    """List webhooks and notifications by name."""
    return Page(items=tuple((await subscriptions.subscription_views(console)).values()))


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
    await subscriptions.find_subscription(console, name)
    return await to_thread.run_sync(lambda: console.deps.store.outbox.deliveries(name, state=state, limit=limit, cursor=cursor))


@router.post(
    "/webhooks/{name}/deliveries/{delivery}/resend", operation_id="resend_delivery", status_code=202, responses=problem_responses(409)
)
async def resend(name: Name, delivery: Id, console: TheConsole, caller: Approver) -> Resent:
    """Send one dead letter again, with all its attempts."""
    count = await subscriptions.resend_deliveries(console, name, [delivery], by=caller)
    if not count:
        raise NotFound(f"{name} has no dead letter {delivery}")
    return Resent(subscription=name, resent=count)


@router.post("/webhooks/{name}/resend", operation_id="resend_dead_letters", status_code=202, responses=problem_responses(409))
async def resend_all(name: Name, console: TheConsole, caller: Approver) -> Resent:
    """Send all its dead letters again."""
    return Resent(subscription=name, resent=await subscriptions.resend_deliveries(console, name, None, by=caller))


@router.post("/webhooks/{name}/test", operation_id="test_webhook", responses=problem_responses(409))
async def test(name: Name, console: TheConsole, caller: Approver) -> Tested:
    """Send one test event now, and return the result."""
    return await subscriptions.send_test(console, name, caller)
