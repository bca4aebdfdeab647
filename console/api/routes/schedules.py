"""Schedules: list, show, pause, unpause, and run one now."""

from __future__ import annotations

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Response
from pydantic import StringConstraints

from console.api.dependencies import AuthenticatedRoute, Launcher, Member
from console.http.dependencies import IdempotencyKey, TheConsole
from console.http.problems import problem_responses
from console.services import schedules
from console.services.console_orders import order_run_now
from console.services.inputs import StrictBody, Triggered
from console.services.schedules import ScheduleView
from console.services.submit_job import start_job
from justenough.domain.readmodel.views import Page

ScheduleName = Annotated[str, Path(max_length=63, description="A schedule's name in triggers.yaml")]

router = APIRouter(route_class=AuthenticatedRoute, tags=["schedules"])


class PauseBody(StrictBody, json_schema_extra={"examples": [{"reason": "the database is being moved tonight"}]}):
    """The reason for pausing a schedule."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class RunBody(StrictBody, json_schema_extra={"examples": [{"reason": "last night's run was missed"}]}):
    """The reason for running a schedule's job now."""

    reason: Annotated[str, StringConstraints(max_length=500)] = ""


@router.get("/schedules")
async def list_schedules(console: TheConsole, _: Member) -> Page[ScheduleView]:
    """List schedules by name, each with its last job. If Temporal is unreachable, the list lacks their status in Temporal."""
    return Page(items=await schedules.list_schedules(console), next=None)


@router.get("/schedules/{name}")
async def show_schedule(name: ScheduleName, console: TheConsole, _: Member) -> ScheduleView:
    """Show a schedule with its last jobs."""
    return await schedules.show_schedule(console, name)


@router.post("/schedules/{name}/pause", operation_id="pause_schedule")
async def pause(name: ScheduleName, body: PauseBody, console: TheConsole, caller: Launcher) -> ScheduleView:
    """Pause a schedule until somebody unpauses it. Jobs that it has launched continue."""
    return await schedules.set_paused(console, name, caller.person, reason=body.reason)


@router.post("/schedules/{name}/unpause", operation_id="unpause_schedule")
async def unpause(name: ScheduleName, console: TheConsole, caller: Launcher) -> ScheduleView:
    """Unpause a schedule. It continues with its next run; missed runs are not caught up."""
    return await schedules.set_paused(console, name, caller.person, reason=None)


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
