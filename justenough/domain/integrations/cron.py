"""Parses cron expressions: five fields, each a set of numbers. No I/O, no clock, no time zones.

Stricter than most crons on purpose: an expression that two implementations read differently is rejected. If both day fields are restricted,
Temporal runs on a day only if both match, other programs if one matches; so only one of the two may be restricted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

from justenough.domain.core.errors import reject_if

FIELD_NAMES = ("minute", "hour", "day of month", "month", "day of week")
FIELD_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
"""Sunday is 0 and 7."""
OPEN_END = (59, 23, 31, 12, 6)
"""The last value of `*` and of a number with a step. For the day of the week it is 6, so that Sunday is not counted twice."""
MONTHS = {
    name: number
    for number, name in enumerate(["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"], start=1)
}
WEEKDAYS = {name: number for number, name in enumerate(["sun", "mon", "tue", "wed", "thu", "fri", "sat"])}
FIELD_WORDS: tuple[dict[str, int], ...] = ({}, {}, {}, MONTHS, WEEKDAYS)
MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
"""Days of each month in a leap year."""

_PART = re.compile(r"(?:(?P<all>\*)|(?P<first>[0-9]{1,2}|[a-z]{3})(?:-(?P<last>[0-9]{1,2}|[a-z]{3}))?)(?:/(?P<step>[0-9]{1,2}))?")

FieldValues = frozenset[int]


@dataclass(frozen=True, slots=True)
class Cron:
    """The values of each field. Days of the week are 0 (Sunday) to 6 (Saturday)."""

    minutes: FieldValues
    hours: FieldValues
    days: FieldValues
    months: FieldValues
    weekdays: FieldValues

    def matches(self, local: datetime) -> bool:
        """Whether `local` (wall-clock time in the schedule's zone) is a scheduled minute."""
        values = (local.minute, local.hour, local.day, local.month, local.isoweekday() % 7)
        fields = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return local.second == local.microsecond == 0 and all(value in field for value, field in zip(values, fields, strict=True))


def read_cron(text: str) -> Cron:
    """Parse `minute hour day-of-month month day-of-week`; raise ValueError that names the invalid field."""
    fields = text.lower().split()
    if len(fields) != len(FIELD_NAMES):
        raise ValueError(f'a cron expression has five fields ({", ".join(FIELD_NAMES)}), like "0 2 * * *"; this one has {len(fields)}')
    minutes, hours, days, months, weekdays = (
        frozenset(value for part in field.split(",") for value in _parse_part(number, part)) for number, field in enumerate(fields)
    )
    cron = Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays))
    if len(cron.days) < 31 and len(cron.weekdays) < 7:
        raise ValueError("restrict days of the month or days of the week, not both: cron runs if either matches, Temporal if both match")
    reject_if(not any(day <= MONTH_DAYS[month - 1] for month in cron.months for day in cron.days), "none of these months has such a day")
    return cron


def ranges(field: FieldValues) -> tuple[tuple[int, int], ...]:
    """Return a field as the fewest inclusive ranges: {1, 2, 3, 7} → (1, 3), (7, 7)."""
    merged: list[tuple[int, int]] = []
    for value in sorted(field):
        if merged and merged[-1][1] == value - 1:
            merged[-1] = (merged[-1][0], value)
        else:
            merged.append((value, value))
    return tuple(merged)


def _parse_part(number: int, text: str) -> range:
    """Parse one part of a field's list; `number`: the field's index."""
    match = _PART.fullmatch(text)
    if match is None:
        raise ValueError(f"{FIELD_NAMES[number]}: {text!r} must be *, a number, a range like 1-5, or one of these with a step like */15")
    first = FIELD_BOUNDS[number][0] if match["all"] else _parse_value(number, match["first"])
    last, step = first, int(match["step"] or 1)
    if match["last"]:
        last = _parse_value(number, match["last"])
    elif match["all"] or match["step"]:
        last = OPEN_END[number]
    reject_if(step < 1 or last < first, f"{FIELD_NAMES[number]}: {text!r} matches nothing")
    return range(first, last + 1, step)


def _parse_value(number: int, text: str) -> int:
    lowest, highest = FIELD_BOUNDS[number]
    value = int(text) if text.isdigit() else FIELD_WORDS[number].get(text)
    if value is None:
        raise ValueError(f"{FIELD_NAMES[number]}: unknown value {text!r}")
    reject_if(not lowest <= value <= highest, f"{FIELD_NAMES[number]}: {text} is not from {lowest} to {highest}")
    return value
