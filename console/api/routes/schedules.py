"""Schedules: list, show, pause, unpause, and run one now."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Response
from pydantic import ConfigDict, StringConstraints

from console.api.dependencies import AuthenticatedRoute, Launcher, Member
from console.http.dependencies import IdempotencyKey, TheConsole
from console.http.problems import problem_responses
from console.services.console import Console
from console.services.console_orders import configured_schedule, order_run_now
from console.services.inputs import StrictBody, Triggered
from console.services.submit_job import start_job
from console.temporal.client import TemporalUnavailable
from justenough.adapters.configuration.configured_jobs import ScheduledJob
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.base_model import Message
from justenough.domain.core.errors import RetryLater
from justenough.domain.integrations.schedules import schedule_origin
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType, build_event
from justenough.domain.readmodel.views import EntryView, Launched, Page

MAX_RUNS_SHOWN = 10
MAX_OCCASIONS_SHOWN = 5
NOT_IN_TEMPORAL_TEXT = "not created in Temporal yet"

ScheduleName = Annotated[str, Path(max_length=63, description="A schedule's name in triggers.yaml")]

router = APIRouter(route_class=AuthenticatedRoute, tags=["schedules"])


class PauseBody(StrictBody):
    """The reason for pausing a schedule."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "the database is being moved tonight"}]})

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class RunBody(StrictBody):
    """The reason for running a schedule's job now."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "last night's occasion was missed"}]})

    reason: Annotated[str, StringConstraints(max_length=500)] = ""


class ScheduleView(Message):
    """A schedule as in triggers.yaml, its status in Temporal, and the jobs it launched."""

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
    """The next occasions; a paused schedule launches no job at these times."""
    missed: int | None
    """Occasions since the schedule was created that Temporal skipped because their catch-up window had passed."""
    jobs: tuple[Launched, ...]
    """Newest first."""
    skipped: tuple[str, ...]
    """Occasions at which no job was launched, because the previous job had not ended."""
    problem: str | None
    """Why the status is unknown, or why Temporal differs from triggers.yaml."""


@router.get("/schedules")
async def list_schedules(console: TheConsole, _: Member) -> Page[ScheduleView]:
    """List schedules by name, each with its last job. If Temporal is unreachable, the list lacks their status in Temporal."""
    schedules = (await to_thread.run_sync(console.deps.config.current)).schedules
    views = await asyncio.gather(*(_schedule_view(console, name, timed, runs=1) for name, timed in sorted(schedules.items())))
    return Page(items=tuple(views), next=None)


@router.get("/schedules/{name}")
async def show_schedule(name: ScheduleName, console: TheConsole, _: Member) -> ScheduleView:
    """Show a schedule with its last jobs."""
    return await _named_schedule_view(console, name)


@router.post("/schedules/{name}/pause", operation_id="pause_schedule")
async def pause(name: ScheduleName, body: PauseBody, console: TheConsole, caller: Launcher) -> ScheduleView:
    """Pause a schedule until somebody unpauses it. Jobs that it has launched continue."""
    return await _set_paused(console, name, caller.person, f"{caller.person.name}: {body.reason}", reason=body.reason)


@router.post("/schedules/{name}/unpause", operation_id="unpause_schedule")
async def unpause(name: ScheduleName, console: TheConsole, caller: Launcher) -> ScheduleView:
    """Unpause a schedule. It continues with its next occasion and does not make up missed ones."""
    return await _set_paused(console, name, caller.person, f"unpaused by {caller.person.name}", reason=None)


@router.post(
    "/schedules/{name}/run",
    operation_id="run_schedule",
    status_code=201,
    response_model=Triggered,
    responses={
        **problem_responses(409),
        200: {"model": Triggered, "description": "This job was already launched with the same key, or by a concurrent call"},
    },
)
async def run(
    name: ScheduleName, body: RunBody, response: Response, console: TheConsole, caller: Launcher, idempotency_key: IdempotencyKey = None
) -> Triggered:
    """Launch a schedule's job now, even if the schedule is paused. The caller may not decide any of its requests."""
    order = await to_thread.run_sync(
        lambda: order_run_now(console.deps, console.quotas, name, caller.person, reason=body.reason, key=idempotency_key)
    )
    await start_job(console, order)
    response.status_code = 201 if order.new else 200
    return Triggered(id=order.job.id, state=order.job.state)


async def _named_schedule_view(console: Console, name: str) -> ScheduleView:
    return await _schedule_view(console, name, await to_thread.run_sync(configured_schedule, console.deps, name), runs=MAX_RUNS_SHOWN)


async def _schedule_view(console: Console, name: str, scheduled_job: ScheduledJob, *, runs: int) -> ScheduleView:
    problem, status = console.schedule_sync.problem(name), None
    try:
        status = await console.schedule_sync.status(name)
        problem = problem or (NOT_IN_TEMPORAL_TEXT if status is None else None)
    except RetryLater as error:
        problem = str(error)
    jobs = await to_thread.run_sync(lambda: console.deps.store.jobs.list_launched_by(schedule_origin(name), limit=runs))
    # Occasions at which no job was launched because the newest job had not ended.
    skips: tuple[EntryView, ...] = ()
    if jobs:
        ledger = console.deps.store.ledger
        skips = (await to_thread.run_sync(lambda: ledger.entries(job=jobs[0].id, types=(EventType.SCHEDULE_SKIPPED,)))).items
    schedule = scheduled_job.schedule
    return ScheduleView(
        **schedule.model_dump(exclude={"paused"}),
        name=name,
        paused=status.paused if status else None,
        note=status.note if status and status.paused else None,
        next=status.next[:MAX_OCCASIONS_SHOWN] if status else (),
        missed=status.missed if status else None,
        jobs=jobs,
        skipped=tuple(entry.data["occasion"] for entry in skips),
        problem=problem,
    )


async def _set_paused(console: Console, name: str, person: Person, note: str, *, reason: str | None) -> ScheduleView:
    """Pause a schedule for a reason, or unpause it if `reason` is None, and record each change. Raises NotFound, TemporalUnavailable."""
    await to_thread.run_sync(configured_schedule, console.deps, name)
    status = await console.gateway.schedule_status(name)
    if status is None:
        raise TemporalUnavailable(NOT_IN_TEMPORAL_TEXT)
    paused = reason is not None
    if status.paused is not paused:
        await console.gateway.set_schedule_paused(name, note, paused=paused)
        console.schedule_sync.forget(name)
        now, kind = console.deps.now(), EventType.SCHEDULE_PAUSED if paused else EventType.SCHEDULE_UNPAUSED
        data = {"schedule": name, "person": person.id, "name": person.name, **({} if reason is None else {"reason": reason})}
        event = build_event(kind, UNATTRIBUTED_CHAIN, at=now, about=f"{name}/{now.isoformat()}", **data)
        await to_thread.run_sync(console.deps.store.ledger.append, [event])
    return await _named_schedule_view(console, name)
