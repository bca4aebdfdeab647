"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from console.cli.errors import ExitCode, Failure

JobId = Annotated[str, typer.Argument(metavar="ID", help="A job's id.")]
OfJob = Annotated[str | None, typer.Option("--job", metavar="ID", help="Only those of this job.", show_default=False)]
Limit = Annotated[int | None, typer.Option(min=1, max=1000, help="How many at most.", show_default=False)]
Cursor = Annotated[str | None, typer.Option(help="`next` of the page before.", show_default=False)]


def path_segment(name: str) -> str:
    """Return what someone typed as one part of a path, whatever is in it. Raises Failure where that is nothing."""
    if not name.strip():
        raise Failure("an id is needed, not an empty text", code=ExitCode.USAGE)
    return quote(name, safe="")
