"""Times and durations as users type them. Pure: `now` is an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from console.cli.errors import ExitCode, Failure

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Only from this time on: an age (24h, 7d), a date or a time.", show_default=False),
]
Until = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only before this time (same formats as --since).", show_default=False)
]


def parse_duration_option(option: str, text: str) -> int:
    """Return the seconds of a duration like 30s, 10m or 2h. Raises Failure."""
    from justenough.domain.core.units import parse_duration  # noqa: PLC0415 - loads pydantic

    try:
        return parse_duration(text)
    except ValueError as error:
        raise Failure(f"{option}: {error}", code=ExitCode.USAGE) from error


def parse_time_argument(option: str, text: str, *, now: datetime) -> datetime:
    """Return the time that an option's text means; UTC if it names no zone. Raises Failure."""
    from justenough.domain.core.units import parse_duration  # noqa: PLC0415 - loads pydantic

    try:
        return now - timedelta(seconds=parse_duration(text))
    except ValueError:
        pass
    except OverflowError:
        raise Failure(f"{option}: {text} is too long ago; give a shorter age or a date", code=ExitCode.USAGE) from None
    return parse_date_or_time(option, text, or_else="neither an age like 24h or 7d nor")


def parse_date_or_time(option: str, text: str, *, or_else: str = "not") -> datetime:
    """Return the time of a date or time in ISO 8601; UTC if it names no zone. Raises Failure."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise Failure(f"{option}: {text!r} is {or_else} a date or time like 2026-01-31 or 2026-01-31T18:30", code=ExitCode.USAGE) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def time_argument_text(option: str, text: str | None, *, now: datetime) -> str | None:
    """Return the time as the API takes it; None for None."""
    return parse_time_argument(option, text, now=now).isoformat() if text is not None else None
