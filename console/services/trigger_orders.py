"""What an event has the console order, once per event. Blocking, for a thread. Whose event it is was seen before."""

from __future__ import annotations

from console.services.console_orders import Wish, earlier, ordered
from console.services.submit_job import Taken
from justenough.adapters.configuration.configured_jobs import Armed
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.ids import new_job_id
from justenough.domain.integrations.cloudevents import WHAT, CloudEvent
from justenough.domain.integrations.triggers import filled, origin_of
from justenough.services.dependencies import Deps


def taken(deps: Deps, name: str, armed: Armed, event: CloudEvent, *, delivery: str) -> Taken:
    """Record the order of an event and return it; the same event again is returned as it was.

    Raises InvalidInput where the event does not fit its trigger, Conflict where the order would not hold.
    """
    if not event.structured and event.id != delivery:
        raise InvalidInput(WHAT, (Problem("id", "in binary mode ce-id must be the webhook-id, which is what the signature covers"),))
    entity = deps.vault.own_entity()
    new = new_job_id(deps.settings.installation, now=deps.now())
    key = _key(name, event)
    job = deps.store.remember(entity, key, new, key)
    # What was good once is answered as it was, though trigger, job or catalog have changed since.
    return earlier(deps, job) or ordered(deps, _wish(name, armed, event), job=job, entity=entity)


def _key(name: str, event: CloudEvent) -> str:
    """Return what an event is known by. In binary mode nothing vouches for its source, which could be altered to launch a job twice."""
    return digest_of({"trigger": name, "id": event.id, "source": event.source if event.structured else None})


def _wish(name: str, armed: Armed, event: CloudEvent) -> Wish:
    reason = f"event {event.id} of {event.source}"
    return Wish(origin_of(name), armed, filled(armed.trigger, event), reason, parent=event.parent)
