"""Moments as people type them: how long ago, a date, a time. Pure: `now` is an argument."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from console.cli.errors import ExitCode, Failure

Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="From when on: how long ago (24h, 7d), or a date or time.", show_default=False),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before when, written alike.", show_default=False)]


def parse_time_argument(option: str, text: str, *, now: datetime) -> datetime:
    """Return the moment that someone typed after an option; UTC where it names no zone. Raises Failure where it is none."""
    from justenough.domain.core.units import parse_duration  # noqa: PLC0415 - loads pydantic

    try:
        return now - timedelta(seconds=parse_duration(text))
    except ValueError:
        pass
    except OverflowError:
        raise Failure(f"{option}: {text} ago is before all times", code=ExitCode.USAGE) from None
    return parse_date_or_time(option, text, or_else="neither like 24h or 7d nor")


def parse_date_or_time(option: str, text: str, *, or_else: str = "not") -> datetime:
    """Return the moment that a date or a time says, UTC where it names no zone. Raises Failure."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Failure(f"{option}: {text!r} is {or_else} a date or time like 2026-01-31 or 2026-01-31T18:30", code=ExitCode.USAGE) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def time_argument_text(option: str, text: str | None, *, now: datetime) -> str | None:
    """Return the same as the API takes it; None of None."""
    return parse_time_argument(option, text, now=now).isoformat() if text is not None else None
