"""Arguments and options that several commands share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated
from urllib.parse import quote

import typer

from console.cli.failures import Exit, Failure

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]
OfJob = Annotated[str | None, typer.Option("--job", metavar="ID", help="Only those of this job.", show_default=False)]
Limit = Annotated[int | None, typer.Option(min=1, max=1000, help="How many at most.", show_default=False)]
Cursor = Annotated[str | None, typer.Option(help="`next` of the page before.", show_default=False)]


def segment(name: str) -> str:
    """Return what someone typed as one part of a path, whatever is in it. Raises Failure where that is nothing."""
    if not name.strip():
        raise Failure("an id is needed, not an empty text", code=Exit.USAGE)
    return quote(name, safe="")


def moment_of(text: str, *, now: datetime) -> datetime:
    """Return the moment that `--since` says: how long ago, a date or a time. Raises Failure."""
    from justenough.model import seconds_of  # noqa: PLC0415 - loads pydantic

    try:
        return now - timedelta(seconds=seconds_of(text))
    except ValueError:
        pass
    except OverflowError:
        raise Failure(f"--since: {text} ago is before all times", code=Exit.USAGE) from None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise Failure(f"--since: {text!r} is neither like 24h or 7d nor a date or time like 2026-01-31", code=Exit.USAGE) from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
