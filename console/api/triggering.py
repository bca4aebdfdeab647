"""Makes the order of an event and records it, once per event. Blocking, for a thread. Starts nothing; that is the gateway's.

Whose event it is was seen before. What the console signs here counts only where the worker's own configuration names the same job.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from activities.deps import Deps
from activities.entries import submitted
from activities.triggering import Armed
from activities.verification import verify_order
from console.api.launching import Taken
from justenough.answering import Refused
from justenough.catalog import problems_of
from justenough.cloudevents import WHAT, CloudEvent
from justenough.errors import Conflict, InvalidInput, Problem
from justenough.ids import new_job_id
from justenough.messages import JobInput
from justenough.spec import checked_spec
from justenough.statements import OrderStatement, Signed, canonical, digest_of, signable
from justenough.triggers import filled, origin_of

LIFE = timedelta(hours=24)
"""How long an order waits for its approvals, at most: as one that a person signs."""


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
    return _earlier(deps, job) or _recorded(deps, _order(deps, name, armed, event, job=job, entity=entity))


def _key(name: str, event: CloudEvent) -> str:
    """Return what an event is known by. In binary mode nothing vouches for its source, which could be altered to launch a job twice."""
    return digest_of({"trigger": name, "id": event.id, "source": event.source if event.structured else None})


def _order(deps: Deps, name: str, armed: Armed, event: CloudEvent, *, job: str, entity: str) -> JobInput:
    params, now = filled(armed.trigger, event), deps.now().replace(microsecond=0)
    if problems := problems_of(checked_spec(armed.spec, params), deps.config.current().catalog):
        raise InvalidInput("job spec", problems)
    if armed.bundle is not None:
        deps.store.put_bundle(str(armed.bundle_digest), armed.bundle)
    statement = OrderStatement(
        job=job,
        spec_digest=armed.spec_digest,
        bundle=armed.bundle_digest,
        params=params,
        reason=f"event {event.id} of {event.source}",
        person=entity,
        parent=event.parent,
        origin=origin_of(name),
        issued_at=now,
        expires_at=now + LIFE,
    )
    raw = signable(statement)
    signed = Signed(statement=raw, signature=deps.vault.sign_own(entity, canonical(raw)))
    return JobInput.of(job, armed.spec, params, armed.bundle_digest, signed)


def _recorded(deps: Deps, order: JobInput) -> Taken:
    verified = verify_order(deps, order, now=deps.now())
    if isinstance(verified, Refused):
        raise Conflict(f"the order of this event does not hold: {verified.why}")
    # Nothing is new where the same event is taken by somebody else at the same time.
    new = bool(deps.store.record([submitted(order, verified, at=deps.now())]))
    kept = _earlier(deps, order.job)
    assert kept is not None, "what is recorded is there"
    return replace(kept, new=new)


def _earlier(deps: Deps, job: str) -> Taken | None:
    found, view = deps.store.order(job), deps.store.job(job)
    return Taken(job=view, order=JobInput.of(job, *found), new=False) if found and view else None
