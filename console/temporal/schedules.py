"""What a schedule starts when its time comes: one short workflow, which asks a console to order the job. Deterministic, no I/O.

It runs in the console, on a queue of the consoles' own: the worker cannot order, and a console that is away finds it when it is back.
"""

from __future__ import annotations

from temporalio.client import (
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleCalendarSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleRange,
    ScheduleSpec,
    ScheduleState,
)

from justenough.domain.integrations import schedules
from justenough.domain.integrations.cron import Field, ranges

OVERLAPS = {"skip": ScheduleOverlapPolicy.SKIP, "allow": ScheduleOverlapPolicy.ALLOW_ALL}
"""For occasions that wait for a console; whether the job before has ended is the console's to look up."""


def schedule_of(name: str, wanted: schedules.Schedule, *, prefix: str, queue: str) -> Schedule:
    """Return the Temporal Schedule of one of triggers.yaml. Temporal reads no cron of ours: it is given the numbers themselves."""
    return Schedule(
        action=ScheduleActionStartWorkflow("Fire", name, id=f"{prefix}{name}", task_queue=queue, execution_timeout=schedules.WINDOW),
        spec=ScheduleSpec(calendars=[_calendar(wanted)], time_zone_name=wanted.timezone),
        # The default catches up for a year.
        policy=SchedulePolicy(overlap=OVERLAPS[wanted.overlap], catchup_window=schedules.WINDOW),
        state=ScheduleState(paused=wanted.paused, note="triggers.yaml: paused from the beginning" if wanted.paused else None),
    )


def same(found: Schedule, wanted: Schedule) -> bool:
    """Whether two do the same at the same times. Whether they are paused is people's to say."""
    return _essence(found) == _essence(wanted)


def _essence(schedule: Schedule) -> tuple[object, ...]:
    action = schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    return schedule.spec, schedule.policy, action.workflow, action.id, action.task_queue, action.execution_timeout


def _calendar(wanted: schedules.Schedule) -> ScheduleCalendarSpec:
    times = wanted.times
    return ScheduleCalendarSpec(
        second=(ScheduleRange(0, 0, 1),),
        minute=_ranges(times.minutes),
        hour=_ranges(times.hours),
        day_of_month=_ranges(times.days),
        month=_ranges(times.months),
        day_of_week=_ranges(times.weekdays),
    )


def _ranges(field: Field) -> tuple[ScheduleRange, ...]:
    return tuple(ScheduleRange(first, last, 1) for first, last in ranges(field))
