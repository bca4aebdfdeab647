"""The sweep's schedule in Temporal: created when a worker starts, and restored if somebody deletes, pauses or changes it."""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from datetime import timedelta

import structlog
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
)
from temporalio.service import RPCError, RPCStatusCode

from activities.support.async_tools import wait_up_to
from justenough.adapters.configuration.settings import Settings
from workflows import options
from workflows.sweep import Sweep

CHECK_INTERVAL_S = 15.0, 30.0
"""Seconds between two checks of the schedule, random so that workers do not check at the same moment."""
RPC_TIMEOUT = timedelta(seconds=5)

log = structlog.get_logger()


async def put_sweep_schedule(client: Client, settings: Settings) -> bool:
    """Create or correct the schedule of the installation's sweep; return whether anything changed. Raises RPCError."""
    name = f"sweep-{settings.installation}"
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(Sweep.run, id=name, task_queue=settings.task_queue, execution_timeout=options.SWEEP_TIMEOUT),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=options.SWEEP_INTERVAL)]),
        # By default Temporal starts the missed runs of up to a year: thousands of sweeps after an outage.
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=10)),
    )
    handle = client.get_schedule_handle(name)
    try:
        # Do not update without need: Temporal does not catch up on runs that were due before an update.
        if _essence((await handle.describe(rpc_timeout=RPC_TIMEOUT)).schedule) == _essence(schedule):
            return False
        await handle.update(lambda _: ScheduleUpdate(schedule=schedule), rpc_timeout=RPC_TIMEOUT)
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        # Another worker may create it first.
        with suppress(ScheduleAlreadyRunningError):
            await client.create_schedule(name, schedule, rpc_timeout=RPC_TIMEOUT)
    return True


async def keep_sweep_schedule(client: Client, settings: Settings, ended: asyncio.Event) -> None:
    """Create the schedule, and restore it within half a minute whenever it differs from the intended one, until the event is set."""
    is_first = True
    while not ended.is_set():
        try:
            if await put_sweep_schedule(client, settings) and not is_first:
                log.warning("the sweep's schedule was missing, paused or changed, and has been restored")
            is_first = False
        except Exception as error:  # noqa: BLE001 - nobody else restores it, so this continues for as long as the worker runs
            why = error.message if isinstance(error, RPCError) else ""
            log.warning("the sweep's schedule cannot be checked now", error=type(error).__name__, why=why)
        await wait_up_to(timedelta(seconds=secrets.SystemRandom().uniform(*CHECK_INTERVAL_S)), ended)


def _essence(schedule: Schedule) -> tuple[object, ...]:
    """Return the parts of a schedule that determine when it starts which workflow with which input."""
    action = schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    does = action.workflow, action.id, action.task_queue, action.execution_timeout, list(action.args)
    limits = schedule.state.paused, schedule.state.limited_actions
    return (*does, *limits, schedule.spec, schedule.policy.overlap, schedule.policy.catchup_window)
