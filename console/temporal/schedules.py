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
from justenough.domain.integrations.cron import FieldValues, ranges

OVERLAP_POLICIES = {"skip": ScheduleOverlapPolicy.SKIP, "allow": ScheduleOverlapPolicy.ALLOW_ALL}
"""For occasions that wait for a console; whether the job before has ended is the console's to look up."""


def to_temporal_schedule(name: str, definition: schedules.Schedule, *, prefix: str, queue: str) -> Schedule:
    """Return the Temporal Schedule of one of triggers.yaml. Temporal reads no cron of ours: it is given the numbers themselves."""
    return Schedule(
        action=ScheduleActionStartWorkflow(
            "Fire", name, id=f"{prefix}{name}", task_queue=queue, execution_timeout=schedules.CATCHUP_WINDOW
        ),
        spec=ScheduleSpec(calendars=[_to_calendar(definition)], time_zone_name=definition.timezone),
        # The default catches up for a year.
        policy=SchedulePolicy(overlap=OVERLAP_POLICIES[definition.overlap], catchup_window=schedules.CATCHUP_WINDOW),
        state=ScheduleState(paused=definition.paused, note="triggers.yaml: paused from the beginning" if definition.paused else None),
    )


def is_same(current: Schedule, desired: Schedule) -> bool:
    """Whether two do the same at the same times. Whether they are paused is people's to say."""
    return _comparable(current) == _comparable(desired)


def _comparable(schedule: Schedule) -> tuple[object, ...]:
    action = schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    return schedule.spec, schedule.policy, action.workflow, action.id, action.task_queue, action.execution_timeout


def _to_calendar(definition: schedules.Schedule) -> ScheduleCalendarSpec:
    times = definition.times
    return ScheduleCalendarSpec(
        second=(ScheduleRange(0, 0, 1),),
        minute=_to_ranges(times.minutes),
        hour=_to_ranges(times.hours),
        day_of_month=_to_ranges(times.days),
        month=_to_ranges(times.months),
        day_of_week=_to_ranges(times.weekdays),
    )


def _to_ranges(field: FieldValues) -> tuple[ScheduleRange, ...]:
    return tuple(ScheduleRange(first, last, 1) for first, last in ranges(field))
