"""`justenough job timeline`: what happened to a job; on a terminal, above it, as lanes to scale."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, JobId, Limit, segment
from console.cli.client.api import Json, connected
from console.cli.options import Output, command, current
from console.cli.render.output import coloured, emit_page
from console.presentation.event_text import sentence
from console.presentation.terminal_text import moment


@command
def timeline(
    job: JobId,
    entries: Annotated[bool, typer.Option("--entries", help="On a terminal too, only the entries.")] = False,
    limit: Limit = 1000,
    cursor: Cursor = None,
) -> None:
    """Show what happened to a job, from its ledger; on a terminal, above it, as lanes to scale."""
    api, path = connected(), f"/jobs/{segment(job)}/timeline"
    found = api.get(path, limit=limit, cursor=cursor)
    if terminal.columns() is not None and current().output is Output.TABLE and not (entries or cursor):
        _draw(found["items"] if found["next"] is None else list(api.every(path)))
    emit_page(
        found,
        header=("SEQ", "AT", "TYPE", "WHAT"),
        row=lambda entry: (entry["seq"], moment(entry["at"]), entry["type"], sentence(entry["type"], entry["data"])),
        empty="Nothing yet.",
    )


def _draw(entries: list[Json]) -> None:
    from console.cli.render.gantt import drawn  # noqa: PLC0415 - only a terminal needs it
    from console.presentation.timeline_model import pictured  # noqa: PLC0415

    for line in drawn(pictured(entries), now=datetime.now(UTC), columns=terminal.columns() or terminal.DEFAULT_COLUMNS, paint=coloured):
        terminal.line(line)
    terminal.line("")
