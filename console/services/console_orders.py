"""The console's own orders, for events of triggers and scheduled runs: signs and records each once. Starts no jobs. Blocking, for a thread.

The worker accepts an order signed here only if its own configuration names the same job.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from console.concurrency.quotas import Quotas
from console.services.submit_job import SubmittedOrder, find_recorded_order, record_order
from console.services.target_health import require_revocable
from justenough.adapters.configuration.configured_jobs import ConfiguredJob, ScheduledJob, TriggeredJob
from justenough.domain.approvals.statements import MAX_CLOCK_SKEW, MAX_STATEMENT_LIFETIME, OrderStatement, SignedStatement, to_signable
from justenough.domain.approvals.tiers import Person
from justenough.domain.catalog.loader import problems_in_spec
from justenough.domain.contracts.workflow_messages import JobInput, ScheduleOccasion
from justenough.domain.core.canonical_json import digest_of, to_canonical_json
from justenough.domain.core.errors import Conflict, GiveUp, InvalidInput, NotFound, Problem, RetryLater, raise_problems
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.rejection import Rejection
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.integrations.cloudevents import EVENT, CloudEvent
from justenough.domain.integrations.triggers import CATCHUP_WINDOW, fill_params, schedule_origin, trigger_origin, why_no_occasion
from justenough.domain.jobs.spec import checked_spec
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps
from justenough.services.verify_order import VerifiedOrder, verify_order


class NotDueYet(RetryLater):
    """A run is not due yet by Vault's clock, although it is by Temporal's."""


class NoOccasion(GiveUp):
    """No run is scheduled at this time, because its configuration has changed or somebody else started the workflow in Temporal."""


@dataclass(frozen=True, slots=True)
class OccasionSkipped:
    """No job was ordered, because the last one has not ended."""

    job: str


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """The configured job to order, its params and the reason."""

    origin: str
    configured_job: ConfiguredJob
    params: Mapping[str, str]
    reason: str
    parent: str | None = None
    asked_by: str | None = None
    """Entity id of the person who ran a schedule now; None for events and scheduled runs."""


def sign_console_order(deps: Deps, quotas: Quotas, request: OrderRequest, *, job: str, entity: str) -> tuple[JobInput, VerifiedOrder]:
    """Sign the order of a job id, whose spec is valid. Raises Conflict if a worker would not accept the order, OverQuota."""
    configured, now = request.configured_job, deps.now().replace(microsecond=0)
    if configured.bundle is not None:
        deps.store.bundles.add(str(configured.bundle_digest), configured.bundle, at=now)
    statement = OrderStatement(
        job=job,
        spec_digest=configured.spec_digest,
        bundle=configured.bundle_digest,
        params=request.params,
        reason=request.reason,
        person=entity,
        parent=request.parent,
        origin=request.origin,
        asked_by=request.asked_by,
        issued_at=now,
        expires_at=now + MAX_STATEMENT_LIFETIME,
    )
    raw = to_signable(statement)
    signed = SignedStatement(statement=raw, signature=deps.vault.sign_own(entity, to_canonical_json(raw)))
    order = JobInput.of(job, configured.spec, request.params, configured.bundle_digest, signed)
    verified = verify_order(deps, order, now=deps.now())
    if isinstance(verified, Rejection):
        raise Conflict(f"the order of {request.origin} is not valid: {verified}")
    quotas.require_job(verified)
    return order, verified


def record_console_order(deps: Deps, quotas: Quotas, request: OrderRequest, *, job: str, entity: str) -> SubmittedOrder:
    """Sign and record the order of a job id. Raises as `sign_console_order` does."""
    order, verified = sign_console_order(deps, quotas, request, job=job, entity=entity)
    # If another console recorded the same order at the same time, this order is not new.
    return record_order(deps, order, verified)


def require_valid_spec(deps: Deps, request: OrderRequest) -> None:
    """Raise InvalidInput with every problem of an order's spec, and NotNow if its access could not be revoked now."""
    spec = checked_spec(request.configured_job.spec, request.params)
    raise_problems("job spec", problems_in_spec(spec, deps.config.current().catalog))
    require_revocable(deps, spec)


def order_event(deps: Deps, quotas: Quotas, name: str, triggered_job: TriggeredJob, event: CloudEvent, *, delivery: str) -> SubmittedOrder:
    """Record the order of an event whose signature was verified; for a repeated event, return its first order. Raises InvalidInput, Conflict, NotNow, OverQuota."""
    if not event.structured and event.id != delivery:
        raise InvalidInput(EVENT, (Problem("id", "in binary mode, ce-id must equal webhook-id: the signature covers only the latter"),))
    entity = deps.vault.own_entity()
    # In binary mode the signature does not cover the source, so a changed source must not launch a second job.
    key = digest_of({"trigger": name, "id": event.id, "source": event.source if event.structured else None})
    job = deps.store.idempotency.find_job(entity, key)
    # A repeated event gets the same result, even if the trigger, its job or the catalog has changed since.
    if job and (earlier := find_recorded_order(deps, job)):
        return earlier
    reason, params = f"event {event.id} of {event.source}", fill_params(triggered_job.trigger, event)
    request = OrderRequest(trigger_origin(name), triggered_job, params, reason, parent=event.parent)
    job = _keep_new_id(deps, quotas, request, key, entity=entity)
    return record_console_order(deps, quotas, request, job=job, entity=entity)


def _keep_new_id(deps: Deps, quotas: Quotas, request: OrderRequest, *keys: str, entity: str, after: str | None = None) -> str:
    """Keep a new job id, which sorts after `after`, for an order that is valid now; return it, or the id that one of the keys had before.

    Raises as `require_valid_spec` and `sign_console_order` do.
    """
    require_valid_spec(deps, request)
    job = new_job_id(deps.settings.installation, now=deps.now(), after=after)
    # Before the id is kept: an order that is fixed, or sent again once there is room, needs an id of that time, because lists sort jobs by ids.
    sign_console_order(deps, quotas, request, job=job, entity=entity)
    for key in keys:
        job = deps.store.idempotency.remember(entity, key, job, key).job
    return job


def configured_schedule(deps: Deps, name: str) -> ScheduledJob:
    """Return a schedule from the current configuration. Raises NotFound, NoConfiguration."""
    schedule = deps.config.require().schedules.get(name)
    if schedule is None:
        raise NotFound(f"there is no schedule {name}")
    return schedule


def order_occasion(deps: Deps, quotas: Quotas, occasion: ScheduleOccasion) -> SubmittedOrder | OccasionSkipped:
    """Record the order of a scheduled run and return it; if it was recorded before, return that order.

    Raises NotFound, NoConfiguration, NoOccasion, NotDueYet, Conflict, InvalidInput, NotNow, OverQuota.
    """
    name, scheduled_job, now = occasion.schedule, configured_schedule(deps, occasion.schedule), deps.now()
    local = occasion.at.astimezone(scheduled_job.zone)
    if MAX_CLOCK_SKEW < occasion.at - now <= CATCHUP_WINDOW:
        raise NotDueYet(f"schedule {name}: {to_rfc3339(local)} has not come yet by Vault's clock")
    # Anyone with write access to Temporal can start this workflow with any time.
    if why := why_no_occasion(scheduled_job.schedule.times, local=local, now=now):
        raise NoOccasion(f"schedule {name}: {why}")
    # In some time zones Temporal starts a time twice if a clock change repeats it. Both count as one run.
    at, first = to_rfc3339(occasion.at), to_rfc3339(local.replace(fold=0))
    order = _record_once(deps, quotas, name, scheduled_job, f"occasion {at}", key=digest_of({"schedule": name, "at": first}))
    if isinstance(order, OccasionSkipped):
        deps.store.ledger.append([build_event(EventType.SCHEDULE_SKIPPED, order.job, at=deps.now(), about=at, schedule=name, occasion=at)])
    return order


def order_run_now(deps: Deps, quotas: Quotas, name: str, person: Person, *, reason: str, key: str | None) -> SubmittedOrder:
    """Record an order for now and return it; the same key returns the same order. Raises NotFound, Conflict, InvalidInput, NotNow, OverQuota."""
    scheduled_job = configured_schedule(deps, name)
    once = digest_of({"schedule": name, "person": person.id, "key": key or str(uuid.uuid4())})
    why = f"run now by {person.name}{': ' if reason else ''}{reason}"
    order = _record_once(deps, quotas, name, scheduled_job, why, key=once, asked_by=person.id)
    if isinstance(order, OccasionSkipped):
        raise Conflict(f"its last job {order.job} has not ended, so `overlap: skip` prevents another run")
    return order


def _record_once(
    deps: Deps, quotas: Quotas, name: str, scheduled_job: ScheduledJob, reason: str, *, key: str, asked_by: str | None = None
) -> SubmittedOrder | OccasionSkipped:
    """Record one order per key. Without overlap, concurrent callers with different keys get the same job, so at most one is ordered."""
    entity, origin, store = deps.vault.own_entity(), schedule_origin(name), deps.store
    request = OrderRequest(origin, scheduled_job, dict(scheduled_job.schedule.params), reason, asked_by=asked_by)
    job = store.idempotency.find_job(entity, key)
    if job is None:
        alone = scheduled_job.schedule.overlap != "allow"
        last = next(iter(store.jobs.list_launched_by(origin, requester_id=entity, limit=1)), None) if alone else None
        if last is not None and not last.state.ended:
            return OccasionSkipped(last.id)
        # The last job is the one whose id sorts last, so the new one must become it, even after a clock was set back.
        after = last.id if last else None
        following = [digest_of({"schedule": name, "after": after})] if alone else []
        job = _keep_new_id(deps, quotas, request, *following, key, entity=entity, after=after)
    if earlier := find_recorded_order(deps, job):
        return earlier
    require_valid_spec(deps, request)
    return record_console_order(deps, quotas, request, job=job, entity=entity)
