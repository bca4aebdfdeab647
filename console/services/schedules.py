"""Schedules: their status in Temporal, the jobs that they launched; pausing and unpausing."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from anyio import to_thread

from console.services.console import Console
from console.services.console_orders import configured_schedule
from console.temporal.client import TemporalUnavailable
from justenough.adapters.configuration.configured_jobs import ScheduledJob
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import RetryLater
from justenough.domain.integrations.triggers import schedule_origin
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType
from justenough.domain.readmodel.views import EntryView, Launched, Page
from justenough.services.ledger_events import event_of_person

MAX_RUNS_SHOWN = 10
MAX_OCCASIONS_SHOWN = 5
MAX_SKIPPED_SHOWN = 100
NOT_IN_TEMPORAL_TEXT = "not created in Temporal yet"


class ScheduleView(Message):
    """A schedule in triggers.yaml, its status in Temporal, and the jobs that it launched."""

    name: str
    cron: str
    timezone: str
    job: str
    """The spec's file in the configuration folder."""
    params: Mapping[str, str]
    overlap: str
    paused: bool | None
    """None if Temporal does not answer; the next three are empty then."""
    note: str | None
    """Who paused it, and why."""
    next: tuple[datetime, ...]
    """The times of the next runs; a paused schedule launches no job at these times."""
    missed: int | None
    """Runs since the schedule was created that Temporal skipped because their catch-up window had passed."""
    jobs: tuple[Launched, ...]
    """Newest first."""
    skipped: tuple[str, ...]
    """The newest runs that launched no job, because the previous job had not ended; at most 100, in order."""
    more_skipped: bool
    """Whether more runs than these were skipped."""
    problem: str | None
    """Why the status is unknown, or why Temporal differs from triggers.yaml."""


async def list_schedules(console: Console) -> tuple[ScheduleView, ...]:
    """Return the schedules by name, each with its last job. If Temporal is unreachable, their status there is missing.

    Raises NoConfiguration until the console has read a valid one.
    """
    schedules = (await to_thread.run_sync(console.deps.config.require)).schedules
    views = await asyncio.gather(*(_schedule_view(console, name, timed, runs=1) for name, timed in sorted(schedules.items())))
    return tuple(views)


async def show_schedule(console: Console, name: str) -> ScheduleView:
    """Return a schedule with its last jobs. Raises NotFound."""
    return await _schedule_view(console, name, await to_thread.run_sync(configured_schedule, console.deps, name), runs=MAX_RUNS_SHOWN)


async def _schedule_view(console: Console, name: str, scheduled_job: ScheduledJob, *, runs: int) -> ScheduleView:
    problem, status = console.schedule_sync.problem(name), None
    try:
        status = await console.schedule_sync.status(name)
        problem = problem or (NOT_IN_TEMPORAL_TEXT if status is None else None)
    except RetryLater as error:
        problem = str(error)
    jobs = await to_thread.run_sync(lambda: console.deps.store.jobs.list_launched_by(schedule_origin(name), limit=runs))
    # Runs for which no job was launched, because the newest job had not ended.
    skips: Page[EntryView] = Page(items=())
    if jobs:
        newest, types = console.deps.store.ledger.entries_newest_first, (EventType.SCHEDULE_SKIPPED,)
        skips = await to_thread.run_sync(lambda: newest(job=jobs[0].id, types=types, limit=MAX_SKIPPED_SHOWN))
    schedule = scheduled_job.schedule
    return ScheduleView(
        **schedule.model_dump(exclude={"paused"}),
        name=name,
        paused=status.paused if status else None,
        note=status.note if status and status.paused else None,
        next=status.next[:MAX_OCCASIONS_SHOWN] if status else (),
        missed=status.missed if status else None,
        jobs=jobs,
        skipped=tuple(entry.data["occasion"] for entry in reversed(skips.items)),
        more_skipped=skips.next is not None,
        problem=problem,
    )


async def set_paused(console: Console, name: str, person: Person, *, reason: str | None) -> ScheduleView:
    """Pause a schedule for a reason, or unpause it if `reason` is None, and record each change. Raises NotFound, TemporalUnavailable."""
    await to_thread.run_sync(configured_schedule, console.deps, name)
    status = await console.gateway.schedule_status(name)
    if status is None:
        raise TemporalUnavailable(NOT_IN_TEMPORAL_TEXT)
    paused = reason is not None
    is_recorded_as_paused = await to_thread.run_sync(console.schedule_sync.recorded_pause, name) is not None
    # Temporal alone may have the change, if the store failed then or somebody made it there.
    if {status.paused, is_recorded_as_paused} != {paused}:
        note = f"{person.name}: {reason}" if paused else f"unpaused by {person.name}"
        await console.gateway.set_schedule_paused(name, note, paused=paused)
        console.schedule_sync.forget(name)
        now, kind = console.deps.now(), EventType.SCHEDULE_PAUSED if paused else EventType.SCHEDULE_UNPAUSED
        data = {"schedule": name, **({} if reason is None else {"reason": reason})}
        event = event_of_person(person, kind, UNATTRIBUTED_CHAIN, at=now, about=f"{name}/{now.isoformat()}", **data)
        await to_thread.run_sync(console.deps.store.ledger.append, [event])
    return await show_schedule(console, name)
