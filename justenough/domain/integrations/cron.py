"""When a schedule's occasions are: five cron fields, read into sets of numbers. No I/O, no clock, no time zones.

Stricter than most crons on purpose: what two of them read differently is refused. Temporal takes a day only where both day fields have it, others where
one has; so only one of the two may be narrowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime

FIELD_NAMES = ("minute", "hour", "day of month", "month", "day of week")
FIELD_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
"""Sunday is 0 and 7."""
OPEN_END = (59, 23, 31, 12, 6)
"""Where `*`, and a number with a step, end: the week's seven days, each once."""
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
    """The numbers that each field takes. Days of the week from Sunday, 0, to Saturday, 6."""

    minutes: FieldValues
    hours: FieldValues
    days: FieldValues
    months: FieldValues
    weekdays: FieldValues

    def matches(self, local: datetime) -> bool:
        """Whether a moment, as clocks show it in the schedule's own time zone, is an occasion: whole minutes only."""
        fields = (local.minute, local.hour, local.day, local.month, local.isoweekday() % 7)
        wanted = (self.minutes, self.hours, self.days, self.months, self.weekdays)
        return local.second == local.microsecond == 0 and all(value in taken for value, taken in zip(fields, wanted, strict=True))


def read_cron(text: str) -> Cron:
    """Return what `minute hour day-of-month month day-of-week` says; raise ValueError, naming the field that is wrong."""
    parts = text.lower().split()
    if len(parts) != len(FIELD_NAMES):
        message = f'a cron has the five fields {", ".join(FIELD_NAMES)}, like "0 2 * * *"; this has {len(parts)}'
        raise ValueError(message)
    minutes, hours, days, months, weekdays = (_parse_field(number, part) for number, part in enumerate(parts))
    cron = Cron(minutes, hours, days, months, frozenset(day % 7 for day in weekdays))
    if len(cron.days) < 31 and len(cron.weekdays) < 7:
        message = "name days of the month or days of the week, not both: cron takes a day that either has, Temporal one that both have"
        raise ValueError(message)
    if not any(day <= MONTH_DAYS[month - 1] for month in cron.months for day in cron.days):
        message = "no month that it names has such a day"
        raise ValueError(message)
    return cron


def ranges(field: FieldValues) -> tuple[tuple[int, int], ...]:
    """Return a field as the fewest ranges, both ends included: {1, 2, 3, 7} → (1, 3), (7, 7)."""
    found: list[tuple[int, int]] = []
    for value in sorted(field):
        if found and found[-1][1] == value - 1:
            found[-1] = (found[-1][0], value)
        else:
            found.append((value, value))
    return tuple(found)


def _parse_field(number: int, text: str) -> FieldValues:
    return frozenset(value for part in text.split(",") for value in _parse_part(number, part))


def _parse_part(number: int, text: str) -> range:
    found = _PART.fullmatch(text)
    if found is None:
        message = f"{FIELD_NAMES[number]}: {text!r} is none of *, a number, a range like 1-5, or one of these with a step like */15"
        raise ValueError(message)
    first = FIELD_BOUNDS[number][0] if found["all"] else _parse_value(number, found["first"])
    last, step = first, int(found["step"] or 1)
    if found["last"]:
        last = _parse_value(number, found["last"])
    elif found["all"] or found["step"]:
        last = OPEN_END[number]
    if step < 1 or last < first:
        message = f"{FIELD_NAMES[number]}: {text!r} takes nothing"
        raise ValueError(message)
    return range(first, last + 1, step)


def _parse_value(number: int, text: str) -> int:
    lowest, highest = FIELD_BOUNDS[number]
    value = int(text) if text.isdigit() else FIELD_WORDS[number].get(text)
    if value is None:
        message = f"{FIELD_NAMES[number]}: {text!r} is not known here"
        raise ValueError(message)
    if not lowest <= value <= highest:
        message = f"{FIELD_NAMES[number]}: {text} is not from {lowest} to {highest}"
        raise ValueError(message)
    return value
