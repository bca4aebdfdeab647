"""Converts schedules of triggers.yaml to Temporal schedules, which start `console.temporal.fire_workflow`. Pure."""

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

from justenough.domain.integrations import triggers
from justenough.domain.integrations.cron import FieldValues, ranges

OVERLAP_POLICIES = {"skip": ScheduleOverlapPolicy.SKIP, "allow": ScheduleOverlapPolicy.ALLOW_ALL}
"""The overlap policies of workflows that wait for a console. The console itself checks whether the previous job has ended."""


def to_temporal_schedule(name: str, definition: triggers.Schedule, *, pause: str | None, prefix: str, queue: str) -> Schedule:
    """Convert a schedule of triggers.yaml. Temporal gets calendar ranges instead of the cron text, so that only we parse cron.

    `pause`: who paused it before, and why; None if nobody did.
    """
    times = definition.times
    calendar = ScheduleCalendarSpec(
        second=(ScheduleRange(0, 0, 1),),
        minute=_to_ranges(times.minutes),
        hour=_to_ranges(times.hours),
        day_of_month=_to_ranges(times.days),
        month=_to_ranges(times.months),
        day_of_week=_to_ranges(times.weekdays),
    )
    return Schedule(
        action=ScheduleActionStartWorkflow("Fire", name, id=f"{prefix}{name}", task_queue=queue, execution_timeout=triggers.CATCHUP_WINDOW),
        spec=ScheduleSpec(calendars=[calendar], time_zone_name=definition.timezone),
        # By default Temporal starts the missed runs of up to a year.
        policy=SchedulePolicy(overlap=OVERLAP_POLICIES[definition.overlap], catchup_window=triggers.CATCHUP_WINDOW),
        state=ScheduleState(
            paused=pause is not None or definition.paused, note=pause or ("triggers.yaml: created paused" if definition.paused else None)
        ),
    )


def is_same(current: Schedule, desired: Schedule) -> bool:
    """Whether two schedules start the same workflow at the same times, ignoring its arguments and whether they are paused."""
    return _comparable(current) == _comparable(desired)


def _comparable(schedule: Schedule) -> tuple[object, ...]:
    action = schedule.action
    assert isinstance(action, ScheduleActionStartWorkflow)
    starts = action.workflow, action.id, action.task_queue, action.execution_timeout
    return (*starts, schedule.spec, schedule.policy, schedule.state.limited_actions)


def _to_ranges(field: FieldValues) -> tuple[ScheduleRange, ...]:
    return tuple(ScheduleRange(first, last, 1) for first, last in ranges(field))
