"""Schedules: list, show, pause, unpause, and run one now."""

from __future__ import annotations

import asyncio
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Path, Response

from console.api.dependencies import AuthenticatedRoute, Launcher, Member
from console.api.routes.jobs import IDEMPOTENCY_KEY_PATTERN
from console.api.schemas import PauseBody, RunBody, ScheduleView, Triggered
from console.http.dependencies import TheConsole
from console.http.problems import problem_responses
from console.services.console import Console
from console.services.schedule_orders import configured_schedule, order_run_now
from console.services.submit_job import start_job
from console.temporal.client import ScheduleStatus, TemporalUnavailable
from justenough.adapters.configuration.configured_jobs import ScheduledJob
from justenough.domain.approvals.tiers import Person
from justenough.domain.core.errors import RetryLater
from justenough.domain.integrations.schedules import schedule_origin
from justenough.domain.ledger.events import UNATTRIBUTED_CHAIN, EventType, build_event
from justenough.domain.readmodel.views import Page

MAX_RUNS_SHOWN = 10
MAX_OCCASIONS_SHOWN = 5
NOT_IN_TEMPORAL_TEXT = "Temporal does not know it yet"

ScheduleName = Annotated[str, Path(max_length=63, description="A schedule's name in triggers.yaml")]

router = APIRouter(route_class=AuthenticatedRoute, tags=["schedules"])


@router.get("/schedules")
async def list_schedules(console: TheConsole, caller: Member) -> Page[ScheduleView]:
    """List schedules by name, each with its last job. If Temporal is away, the list has only what the console knows."""
    del caller
    schedules = (await to_thread.run_sync(console.deps.config.current)).schedules
    views = await asyncio.gather(*(_schedule_view(console, name, timed, runs=1) for name, timed in sorted(schedules.items())))
    return Page(items=tuple(views), next=None)


@router.get("/schedules/{name}")
async def show_schedule(name: ScheduleName, console: TheConsole, caller: Member) -> ScheduleView:
    """Show a schedule with its last jobs."""
    del caller
    return await _named_schedule_view(console, name)


@router.post("/schedules/{name}/pause", operation_id="pause_schedule")
async def pause(name: ScheduleName, body: PauseBody, console: TheConsole, caller: Launcher) -> ScheduleView:
    """Pause a schedule until somebody unpauses it. Jobs that it has launched continue."""
    if not (await _schedule_status(console, name)).paused:
        await console.gateway.pause_schedule(name, f"{caller.person.name}: {body.reason}")
        await _record_change(console, name, EventType.SCHEDULE_PAUSED, caller.person, reason=body.reason)
    return await _named_schedule_view(console, name)


@router.post("/schedules/{name}/unpause", operation_id="unpause_schedule")
async def unpause(name: ScheduleName, console: TheConsole, caller: Launcher) -> ScheduleView:
    """Unpause a schedule. It continues with its next occasion; missed ones are not made up."""
    if (await _schedule_status(console, name)).paused:
        await console.gateway.unpause_schedule(name, f"unpaused by {caller.person.name}")
        await _record_change(console, name, EventType.SCHEDULE_UNPAUSED, caller.person)
    return await _named_schedule_view(console, name)


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
    name: ScheduleName,
    body: RunBody,
    response: Response,
    console: TheConsole,
    caller: Launcher,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=IDEMPOTENCY_KEY_PATTERN, description="A key that identifies the run: a retry with the same key launches no second job"
        ),
    ] = None,
) -> Triggered:
    """Launch a schedule's job now, even if the schedule is paused. The caller may not decide any of its requests."""
    order = await to_thread.run_sync(lambda: order_run_now(console.deps, name, caller.person, reason=body.reason, key=idempotency_key))
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
    # Occasions at which the newest job kept the next one from being launched.
    skips = (
        await to_thread.run_sync(lambda: console.deps.store.ledger.entries(job=jobs[0].id, types=(EventType.SCHEDULE_SKIPPED,)).items)
        if jobs
        else ()
    )
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


async def _schedule_status(console: Console, name: str) -> ScheduleStatus:
    """Return a schedule's current status. Raises NotFound, TemporalUnavailable."""
    await to_thread.run_sync(configured_schedule, console.deps, name)
    status = await console.gateway.schedule_status(name)
    if status is None:
        raise TemporalUnavailable(NOT_IN_TEMPORAL_TEXT)
    return status


async def _record_change(console: Console, name: str, kind: EventType, person: Person, **more: str) -> None:
    """Record that a person paused or unpaused a schedule; each time is a new ledger entry."""
    console.schedule_sync.forget(name)
    now = console.deps.now()
    event = build_event(
        kind, UNATTRIBUTED_CHAIN, at=now, about=f"{name}/{now.isoformat()}", schedule=name, person=person.id, name=person.name, **more
    )
    await to_thread.run_sync(console.deps.store.ledger.append, [event])
