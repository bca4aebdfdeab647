"""What an event has the console order, once per event. Blocking, for a thread. Whose event it is was seen before."""

from __future__ import annotations

from console.services.console_orders import OrderRequest, find_recorded_order, record_console_order
from console.services.submit_job import SubmittedOrder
from justenough.adapters.configuration.configured_jobs import TriggeredJob
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import new_job_id
from justenough.domain.integrations.cloudevents import EVENT, CloudEvent
from justenough.domain.integrations.triggers import fill_params, trigger_origin
from justenough.services.dependencies import Deps


def order_event(deps: Deps, name: str, triggered_job: TriggeredJob, event: CloudEvent, *, delivery: str) -> SubmittedOrder:
    """Record the order of an event and return it; the same event again is returned as it was.

    Raises InvalidInput where the event does not fit its trigger, Conflict where the order would not hold.
    """
    if not event.structured and event.id != delivery:
        raise InvalidInput(EVENT, (Problem("id", "in binary mode ce-id must be the webhook-id, which is what the signature covers"),))
    entity = deps.vault.own_entity()
    new = new_job_id(deps.settings.installation, now=deps.now())
    key = _event_key(name, event)
    job = deps.store.idempotency.remember(entity, key, new, key)
    # What was good once is answered as it was, though trigger, job or catalog have changed since.
    return find_recorded_order(deps, job) or record_console_order(deps, _order_request(name, triggered_job, event), job=job, entity=entity)


def _event_key(name: str, event: CloudEvent) -> str:
    """Return what an event is known by. In binary mode nothing vouches for its source, which could be altered to launch a job twice."""
    return digest_of({"trigger": name, "id": event.id, "source": event.source if event.structured else None})


def _order_request(name: str, triggered_job: TriggeredJob, event: CloudEvent) -> OrderRequest:
    reason = f"event {event.id} of {event.source}"
    return OrderRequest(trigger_origin(name), triggered_job, fill_params(triggered_job.trigger, event), reason, parent=event.parent)
