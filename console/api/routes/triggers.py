"""Incoming events: one signed CloudEvent per request launches the job of a trigger. Needs no token; senders without a valid signature get no details."""

from __future__ import annotations

from typing import Annotated

import structlog
from anyio import to_thread
from fastapi import APIRouter, Path, Request, Response

from console.auth.vault_keys import NOT_VERIFIABLE_TEXT
from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from console.services.console_orders import order_event
from console.services.inputs import Triggered
from console.services.submit_job import start_job
from justenough.adapters.configuration.folder import NoConfiguration
from justenough.domain.core.errors import RetryLater, Unauthenticated
from justenough.domain.integrations.cloudevents import read_event
from justenough.domain.integrations.webhook_signature import ID_HEADER, why_delivery_invalid

DELIVERY_REFUSED_TEXT = (
    "delivery refused: its address, its Standard Webhooks signature or its timestamp is not valid (docs/how-to/triggers.md)"
)

log = structlog.get_logger()

router = APIRouter(tags=["triggers"])


@router.post(
    "/triggers/{name}",
    status_code=201,
    response_model=Triggered,
    operation_id="deliver_event",
    responses={200: {"model": Triggered, "description": "This job was already launched by the same event"}, **problem_responses(409)},
    openapi_extra={"requestBody": {"required": True, "content": {"application/cloudevents+json": {"schema": {"type": "object"}}}}},
)
async def deliver(
    name: Annotated[str, Path(description="The trigger's name in triggers.yaml")], request: Request, response: Response, console: TheConsole
) -> Triggered:
    """Launch the trigger's job for an event (CloudEvents 1.0, structured or binary mode). Sending the same event again returns the same job."""
    headers, body = {key.lower(): value for key, value in request.headers.items()}, await request.body()
    try:
        triggered_job = (await to_thread.run_sync(console.deps.config.require)).triggers.get(name)
    except NoConfiguration as error:
        # The sender is unknown, so it gets no details. It must send the event again, which it might not do after a 401.
        log.warning("a delivery cannot be verified", trigger=name[:63], why=str(error))
        raise RetryLater(NOT_VERIFIABLE_TEXT) from None
    why: str | None = "triggers.yaml has no trigger of this name"
    if triggered_job is not None:
        keys = await console.signing_secrets.keys_of(triggered_job.trigger.signing_secret)
        why = why_delivery_invalid(headers, body, keys, now=console.deps.now())
    if triggered_job is None or why is not None:
        log.warning("a delivery was refused", trigger=name[:63], why=why)
        raise Unauthenticated(DELIVERY_REFUSED_TEXT)
    event = read_event(headers, body)
    order = await to_thread.run_sync(
        lambda: order_event(console.deps, console.quotas, name, triggered_job, event, delivery=headers[ID_HEADER])
    )
    await start_job(console, order)
    response.status_code = 201 if order.new else 200
    return Triggered(id=order.job.id, state=order.job.state)
