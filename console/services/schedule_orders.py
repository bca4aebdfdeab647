"""Orders the job of a schedule: once per occasion, and when a person runs it now. Starts nothing. Blocking, for a thread.

If several consoles take the same occasion, or several occasions at once, at most one job is ordered unless the schedule allows overlap.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from console.services.console_orders import OrderRequest, record_console_order
from console.services.submit_job import SubmittedOrder, find_recorded_order
from justenough.adapters.configuration.configured_jobs import ScheduledJob
from justenough.domain.approvals.tiers import Person
from justenough.domain.contracts.workflow_messages import ScheduleOccasion
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import Conflict, GiveUp, NotFound
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.rfc3339 import to_rfc3339
from justenough.domain.integrations.schedules import schedule_origin, why_no_occasion
from justenough.domain.ledger.events import EventType, build_event
from justenough.services.dependencies import Deps


class NoOccasion(GiveUp):
    """The schedule has no occasion at this time: its configuration has changed, or somebody else wrote to Temporal."""


@dataclass(frozen=True, slots=True)
class OccasionSkipped:
    """Nothing was ordered, because the last job has not ended."""

    job: str


def configured_schedule(deps: Deps, name: str) -> ScheduledJob:
    """Return a schedule from the current configuration. Raises NotFound."""
    schedule = deps.config.current().schedules.get(name)
    if schedule is None:
        raise NotFound(f"there is no schedule {name}")
    return schedule


def order_occasion(deps: Deps, occasion: ScheduleOccasion) -> SubmittedOrder | OccasionSkipped:
    """Record the order of an occasion and return it; a repeated occasion returns its first order. Raises NotFound, NoOccasion, Conflict, InvalidInput."""
    name, scheduled_job = occasion.schedule, configured_schedule(deps, occasion.schedule)
    # Anyone with write access to Temporal can start this with any time.
    if why := why_no_occasion(scheduled_job.schedule.times, local=scheduled_job.to_local_time(occasion.at), now=deps.now()):
        raise NoOccasion(f"schedule {name}: {why}")
    at = to_rfc3339(occasion.at)
    order = _record_once(
        deps,
        name,
        scheduled_job,
        key=digest_of({"schedule": name, "at": at}),
        request=_order_request(name, scheduled_job, f"occasion {at}"),
    )
    if isinstance(order, OccasionSkipped):
        deps.store.ledger.append([build_event(EventType.SCHEDULE_SKIPPED, order.job, at=deps.now(), about=at, schedule=name, occasion=at)])
    return order


def order_run_now(deps: Deps, name: str, person: Person, *, reason: str, key: str | None) -> SubmittedOrder:
    """Record an order for now and return it; the same key returns the same order. Raises NotFound, Conflict, InvalidInput."""
    scheduled_job = configured_schedule(deps, name)
    once = digest_of({"schedule": name, "person": person.id, "key": key or str(uuid.uuid4())})
    why = f"run now by {person.name}{': ' if reason else ''}{reason}"
    order = _record_once(deps, name, scheduled_job, key=once, request=_order_request(name, scheduled_job, why, asked_by=person.id))
    if isinstance(order, OccasionSkipped):
        raise Conflict(f"its last job {order.job} has not ended, and the schedule has `overlap: skip`")
    return order


def _order_request(name: str, scheduled_job: ScheduledJob, reason: str, *, asked_by: str | None = None) -> OrderRequest:
    return OrderRequest(schedule_origin(name), scheduled_job, dict(scheduled_job.schedule.params), reason, asked_by=asked_by)


def _record_once(
    deps: Deps, name: str, scheduled_job: ScheduledJob, *, key: str, request: OrderRequest
) -> SubmittedOrder | OccasionSkipped:
    entity = deps.vault.own_entity()
    job = deps.store.idempotency.find_job(entity, key)
    if job is None:
        following = _next_job_id(deps, name, scheduled_job, entity=entity)
        if isinstance(following, OccasionSkipped):
            return following
        job = deps.store.idempotency.remember(entity, key, following, key)
    return find_recorded_order(deps, job) or record_console_order(deps, request, job=job, entity=entity)


def _next_job_id(deps: Deps, name: str, scheduled_job: ScheduledJob, *, entity: str) -> str | OccasionSkipped:
    """Return the id for the next job. Without overlap, concurrent callers get the same id."""
    new = new_job_id(deps.settings.installation, now=deps.now())
    if scheduled_job.schedule.overlap == "allow":
        return new
    last = next(iter(deps.store.jobs.list_launched_by(schedule_origin(name), requester_id=entity, limit=1)), None)
    if last is not None and not last.state.ended:
        return OccasionSkipped(last.id)
    key = digest_of({"schedule": name, "after": last.id if last else None})
    return deps.store.idempotency.remember(entity, key, new, key)
