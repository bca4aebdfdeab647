"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote

import typer

from console.cli.errors import ExitCode, Failure

JobId = Annotated[str, typer.Argument(metavar="ID", help="The id of a job.")]
OfJob = Annotated[str | None, typer.Option("--job", metavar="ID", help="Only those of this job.", show_default=False)]
Reason = Annotated[str | None, typer.Option(help="Why. The reason is part of the statement that you sign.", show_default=False)]
Limit = Annotated[int | None, typer.Option(min=1, max=1000, help="Maximum number of items.", show_default=False)]
Cursor = Annotated[str | None, typer.Option(help="The `next` value of the previous page.", show_default=False)]


def path_segment(name: str) -> str:
    """Return an id as one segment of a URL path, percent-encoded. Raises Failure if it is empty."""
    if not name.strip():
        raise Failure("the id is empty; give the id of an existing item", code=ExitCode.USAGE)
    return quote(name, safe="")
