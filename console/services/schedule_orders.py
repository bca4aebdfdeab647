"""What a schedule has the console order: once per occasion, and now where a person asks. Blocking, for a thread. Starts nothing; that is the gateway's.

Of several consoles that take the same occasion, or different ones at the same time, one job comes at most, unless the schedule allows overlap.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

from console.services.console_orders import Wish, earlier, ordered
from console.services.submit_job import Taken
from justenough.adapters.configuration.configured_jobs import Timed
from justenough.domain.approvals.tiers import Person
from justenough.domain.contracts.workflow_messages import Occasion
from justenough.domain.core.canonical_json import digest_of
from justenough.domain.core.errors import Conflict, GiveUp, NotFound
from justenough.domain.core.ids import new_job_id
from justenough.domain.core.rfc3339 import rfc3339
from justenough.domain.integrations.schedules import origin_of, why_no_occasion
from justenough.domain.ledger.events import EventType, event
from justenough.services.dependencies import Deps


class NoOccasion(GiveUp):
    """Something asks for a job at a time at which its schedule launches none: its configuration changed, or somebody writes to Temporal."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Nothing is launched: the job that was launched last has not ended."""

    job: str


def known(deps: Deps, name: str) -> Timed:
    """Return a schedule of the configuration as it is now. Raises NotFound."""
    found = deps.config.current().schedules.get(name)
    if found is None:
        raise NotFound(f"there is no schedule {name}")
    return found


def taken(deps: Deps, occasion: Occasion) -> Taken | Skipped:
    """Record the order of an occasion; the same one again is returned as it was. Raises NotFound, NoOccasion, Conflict, InvalidInput."""
    name, timed = occasion.schedule, known(deps, occasion.schedule)
    # Whoever can write to Temporal can start this with any moment they like.
    if why := why_no_occasion(timed.schedule.times, local=timed.local(occasion.at), now=deps.now()):
        raise NoOccasion(f"schedule {name}: {why}")
    at = rfc3339(occasion.at)
    found = _taken(deps, name, timed, key=digest_of({"schedule": name, "at": at}), wish=_wish(name, timed, f"occasion {at}"))
    if isinstance(found, Skipped):
        deps.store.record([event(EventType.SCHEDULE_SKIPPED, found.job, at=deps.now(), about=at, schedule=name, occasion=at)])
    return found


def run_now(deps: Deps, name: str, person: Person, *, reason: str, key: str | None) -> Taken:
    """Record the order that somebody asks for now; the same key again is the same job. Raises NotFound, Conflict, InvalidInput."""
    timed = known(deps, name)
    once = digest_of({"schedule": name, "person": person.id, "key": key or str(uuid.uuid4())})
    why = f"run now by {person.name}{': ' if reason else ''}{reason}"
    found = _taken(deps, name, timed, key=once, wish=_wish(name, timed, why, asked_by=person.id))
    if isinstance(found, Skipped):
        raise Conflict(f"the job that it launched last has not ended: {found.job} (`overlap: skip`)")
    return found


def _wish(name: str, timed: Timed, reason: str, *, asked_by: str | None = None) -> Wish:
    return Wish(origin_of(name), timed, dict(timed.schedule.params), reason, asked_by=asked_by)


def _taken(deps: Deps, name: str, timed: Timed, *, key: str, wish: Wish) -> Taken | Skipped:
    entity = deps.vault.own_entity()
    job = deps.store.remembered(entity, key)
    if job is None:
        following = _next(deps, name, timed, entity=entity)
        if isinstance(following, Skipped):
            return following
        job = deps.store.remember(entity, key, following, key)
    return earlier(deps, job) or ordered(deps, wish, job=job, entity=entity)


def _next(deps: Deps, name: str, timed: Timed, *, entity: str) -> str | Skipped:
    """Return the id of the job that comes after the last one. Without overlap whoever asks at the same time is told the same id."""
    new = new_job_id(deps.settings.installation, now=deps.now())
    if timed.schedule.overlap == "allow":
        return new
    last = next(iter(deps.store.launched(origin_of(name), by=entity, limit=1)), None)
    if last is not None and not last.state.ended:
        return Skipped(last.id)
    place = digest_of({"schedule": name, "after": last.id if last else None})
    return deps.store.remember(entity, place, new, place)
