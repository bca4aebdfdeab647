"""The sweep's schedule on a real server: whatever somebody does to it, a worker makes it what it was, and leaves alone what is in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from temporalio.client import (
    ScheduleActionStartWorkflow,
    ScheduleHandle,
    ScheduleIntervalSpec,
    ScheduleSpec,
    ScheduleUpdate,
    ScheduleUpdateInput,
)

from justenough.adapters.configuration.settings import Settings
from tests.workflows.servers import Bench
from worker.sweep_schedule import put_sweep_schedule
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
