"""Times and durations for pages. Pure: `now` is an argument. static/app.js writes the same texts to update an open page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from console.presentation.terminal_text import TIME_UNITS
from justenough.domain.core.units import SECONDS_PER_UNIT, parse_duration


def span(seconds: float) -> str:
    """Return a duration in at most two units: `12 s`, `4 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    total = max(0, int(seconds))
    if total < 60:
        return f"{total} s"
    size, unit, smaller, smaller_unit = next(units for units in TIME_UNITS if total >= units[0])
    rest = total % size // smaller
    return f"{total // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")


def elapsed_text(seconds: float) -> str:
    """Return a finished duration: as `span`, or `under 1 s`."""
    return span(seconds) if seconds >= 1 else "under 1 s"


def short(seconds: float) -> str:
    """Return a duration in one unit, rounded down: `12 s`, `4 min`, `3 h`, `2 d`."""
    return " ".join(span(seconds).split()[:2])


def time_since(moment: datetime, *, now: datetime) -> str:
    """Return a moment relative to now: `12 s ago`; `in 4 min` for a moment at least a second in the future."""
    seconds = (now - moment).total_seconds()
    return f"{short(max(0.0, seconds))} ago" if seconds > -1 else f"in {short(-seconds)}"


def time_left(moment: datetime, *, now: datetime) -> str:
    """Return the time left until a moment: `4 min 5 s left`, or `time is up`."""
    seconds = (moment - now).total_seconds()
    return f"{span(seconds)} left" if seconds > 0 else "time is up"


def exact_time(moment: datetime) -> str:
    """Return a moment in UTC to the second: `2026-01-31 09:30:00 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def parse_moment(text: str, *, now: datetime) -> datetime | None:
    """Parse a moment that a person typed: a date or time, UTC if it has no offset, or a duration before `now`, like `7d`. None for an empty text.

    Raises ValueError with the advice to show.
    """
    plain = text.strip()
    if not plain:
        return None
    try:
        if plain[-1] in SECONDS_PER_UNIT:
            return now - timedelta(seconds=parse_duration(plain))
        moment = datetime.fromisoformat(plain)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be a date or time like 2026-01-31 or 2026-01-31T18:30, or how long ago, like 7d or 2h") from None


def rfc3339_ms(moment: datetime) -> str:
    """Return a moment as RFC 3339 in UTC with milliseconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
