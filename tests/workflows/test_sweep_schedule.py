"""The sweep's schedule on a real server: if somebody changes it, a worker restores it; a worker does not touch a correct one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from structlog.testing import capture_logs
from temporalio.client import (
    Client,
    ScheduleActionStartWorkflow,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from activities.support.async_tools import run_beside
from justenough.adapters.configuration.settings import Settings
from tests.workflows.servers import Bench
from worker.sweep_schedule import keep_sweep_schedule, put_sweep_schedule
from workflows import options

SETTINGS = Settings(installation="kept")


async def start_less_often(handle: ScheduleHandle) -> None:
    rarely = ScheduleSpec(intervals=[ScheduleIntervalSpec(every=timedelta(days=300))])
    await handle.update(lambda found: ScheduleUpdate(schedule=replace(found.description.schedule, spec=rarely)))


async def start_elsewhere(handle: ScheduleHandle) -> None:
    def to_other_queue(found: ScheduleUpdateInput) -> ScheduleUpdate:
        action = found.description.schedule.action
        assert isinstance(action, ScheduleActionStartWorkflow)
        action.task_queue = "strangers"
        return ScheduleUpdate(schedule=found.description.schedule)

    await handle.update(to_other_queue)


async def end_after_two(handle: ScheduleHandle) -> None:
    def limited(found: ScheduleUpdateInput) -> ScheduleUpdate:
        found.description.schedule.state.limited_actions = True
        found.description.schedule.state.remaining_actions = 2
        return ScheduleUpdate(schedule=found.description.schedule)

    await handle.update(limited)


HARM: dict[str, Callable[[ScheduleHandle], Awaitable[None]]] = {
    "deleted": lambda handle: handle.delete(),
    "paused": lambda handle: handle.pause(),
    "rarer": start_less_often,
    "elsewhere": start_elsewhere,
    "limited": end_after_two,
}


@pytest.mark.parametrize("harm", HARM.values(), ids=HARM)
async def test_a_deleted_or_changed_sweep_schedule_is_restored(server: Bench, harm: Callable[[ScheduleHandle], Awaitable[None]]) -> None:
    handle = server.client.get_schedule_handle("sweep-kept")
    await put_sweep_schedule(server.client, SETTINGS)
    try:
        assert not await put_sweep_schedule(server.client, SETTINGS), "it is in order"
        await harm(handle)
        assert await put_sweep_schedule(server.client, SETTINGS)
        found = (await handle.describe()).schedule
        action = found.action
        assert isinstance(action, ScheduleActionStartWorkflow)
        assert (action.workflow, action.task_queue) == ("Sweep", SETTINGS.task_queue)
        assert [each.every for each in found.spec.intervals] == [options.SWEEP_INTERVAL]
        assert not found.state.paused
        assert not found.state.limited_actions
    finally:
        await handle.delete()


async def check_once(client: Client) -> None:
    """Keep the schedule until the first check is over."""
    async with run_beside(partial(keep_sweep_schedule, client, SETTINGS)):
        # The check begins. The end of the block waits for it.
        await asyncio.sleep(0)


async def test_a_worker_creates_the_schedule_when_it_starts(server: Bench) -> None:
    handle = server.client.get_schedule_handle("sweep-kept")
    await check_once(server.client)
    assert (await handle.describe()).schedule.spec.intervals[0].every == options.SWEEP_INTERVAL
    await handle.delete()


async def test_a_worker_goes_on_without_the_schedule_while_temporal_refuses_it_and_logs_why(server: Bench) -> None:
    with capture_logs() as logs:
        await check_once(Client(server.client.service_client, namespace="no-such-namespace"))
    (logged,) = logs
    assert logged["event"] == "the sweep's schedule cannot be checked now"
    assert "no-such-namespace" in logged["why"]
