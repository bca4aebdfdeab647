"""Orders the job of a trigger, once per event. The caller has verified the event's signature. Blocking, for a thread."""

from __future__ import annotations

from console.services.console_orders import OrderRequest, record_console_order
from console.services.submit_job import SubmittedOrder, find_recorded_order
from justenough.adapters.configuration.configured_jobs import TriggeredJob
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import new_job_id
from justenough.domain.integrations.cloudevents import EVENT, CloudEvent
from justenough.domain.integrations.triggers import fill_params, trigger_origin
from justenough.services.dependencies import Deps


def order_event(deps: Deps, name: str, triggered_job: TriggeredJob, event: CloudEvent, *, delivery: str) -> SubmittedOrder:
    """Record the order of an event and return it; an event that was ordered before returns its first order.

    Raises InvalidInput if the event does not fit its trigger, Conflict if the order would not be accepted.
    """
    if not event.structured and event.id != delivery:
        raise InvalidInput(EVENT, (Problem("id", "in binary mode, ce-id must equal webhook-id: the signature covers only the latter"),))
    entity = deps.vault.own_entity()
    new = new_job_id(deps.settings.installation, now=deps.now())
    # In binary mode the signature does not cover the source: a changed one must not launch a second job.
    key = digest_of({"trigger": name, "id": event.id, "source": event.source if event.structured else None})
    job = deps.store.idempotency.remember(entity, key, new, key)
    # An event that was ordered before gets the same answer, even if the trigger, its job or the catalog has changed since.
    if earlier := find_recorded_order(deps, job):
        return earlier
    reason, params = f"event {event.id} of {event.source}", fill_params(triggered_job.trigger, event)
    request = OrderRequest(trigger_origin(name), triggered_job, params, reason, parent=event.parent)
    return record_console_order(deps, request, job=job, entity=entity)
