"""Arguments and options that several commands share, the times and durations in them, and the question for a reason. `now` is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer

from console.cli import terminal
from console.cli.errors import WrongUsage

Web = Annotated[bool, typer.Option("--web", "-w", help="Open its page in the browser.")]
Reason = Annotated[str | None, typer.Option(metavar="TEXT", help="The reason; it is part of the statement that you sign.")]
Param = Annotated[list[str] | None, typer.Option("--param", metavar="NAME=VALUE", help="Set a parameter of the spec; may be repeated.")]
DEFAULT_PAGE_SIZE = 100
"""The console's maximum number of items of a page if no other is requested."""
Limit = Annotated[int | None, typer.Option(metavar="N", min=1, max=1000, help="Maximum number of items.")]
Cursor = Annotated[str | None, typer.Option(metavar="CURSOR", help="The `next` value of the previous page.")]
Since = Annotated[str | None, typer.Option("--since", metavar="TIME", help="Only from this time on: an age (24h, 7d), a date or a time.")]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only before this time; same formats as --since.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write to this file instead of stdout.")]
Folder = Annotated[Path | None, typer.Argument(metavar="FOLDER", help="The configuration folder; default: JUSTENOUGH_CONFIG.")]
IdempotencyKey = Annotated[
    str | None, typer.Option(metavar="KEY", help="Launch at most one job for this key, however often you repeat the command.")
]


def path_segment(name: str) -> str:
    """Return an id as one segment of a URL path, percent-encoded. Raises Failure if it is empty or a dot segment, which names another path."""
    if name.strip() in {"", ".", ".."}:
        raise WrongUsage(f"{'the id is empty' if not name.strip() else f'{name} is not an id'}; give the id of an existing item")
    return quote(name, safe="")


def parse_duration_option(option: str, text: str) -> int:
    """Return the seconds of a duration like 30s, 10m or 2h. Raises Failure."""
    from justenough.domain.core.units import parse_duration  # noqa: PLC0415 - loads pydantic

    try:
        return parse_duration(text)
    except ValueError as error:
        raise WrongUsage(f"{option}: {error}") from error


def parse_time_argument(option: str, text: str, *, now: datetime) -> datetime:
    """Return the time that an age, a date or a time means; UTC if it names no zone. Raises Failure."""
    from justenough.domain.core.units import parse_duration  # noqa: PLC0415 - loads pydantic

    try:
        return now - timedelta(seconds=parse_duration(text))
    except ValueError:
        return parse_date_or_time(option, text, or_else="neither an age like 24h or 7d nor")
    except OverflowError:
        raise WrongUsage(f"{option}: {text} is too long ago; give a shorter age or a date") from None


def parse_date_or_time(option: str, text: str, *, or_else: str = "not") -> datetime:
    """Parse a date or a time in ISO 8601; without a zone, it is in UTC. Raises Failure."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise WrongUsage(f"{option}: {text!r} is {or_else} a date or time like 2026-01-31 or 2026-01-31T18:30") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def time_argument_text(option: str, text: str | None, *, now: datetime) -> str | None:
    """Return the time as the API takes it; None for None."""
    return parse_time_argument(option, text, now=now).isoformat() if text is not None else None


def parse_params(arguments: Sequence[str], *, option: str = "--param") -> dict[str, str]:
    """Parse the values of an option that takes `name=value`. Raises Failure."""
    params: dict[str, str] = {}
    for item in arguments:
        name, sign, value = item.partition("=")
        if not sign or not name:
            raise WrongUsage(f"{option}: {item!r} must have the form name=value")
        if name in params:
            raise WrongUsage(f"{option}: {name} is set twice; set it once")
        params[name] = value
    return params


def require_reason(text: str | None) -> str:
    """Return the reason, prompting for it on a terminal. Raises Failure if it is empty or too long."""
    if text is None and terminal.is_interactive():
        text = str(typer.prompt("Reason", err=True))
    if not (text or "").strip() or len(text or "") > 1000:
        raise WrongUsage("--reason is required, with at most 1,000 characters")
    return text or ""
