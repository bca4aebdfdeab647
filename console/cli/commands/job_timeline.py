"""`justenough job timeline`: the ledger entries of a job; on a terminal also a chart of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.arguments import Cursor, JobId, Limit, path_segment
from console.cli.client.api import connect_api
from console.cli.json_object import Json
from console.cli.options import CliOutputFormat, command, current_options
from console.cli.render.output import emit_page, with_state_colour
from console.presentation.event_text import event_sentence
from console.presentation.terminal_text import moment


@command
def timeline(
    job: JobId,
    entries: Annotated[bool, typer.Option("--entries", help="Show only the entries, without the chart.")] = False,
    limit: Limit = 1000,
    cursor: Cursor = None,
) -> None:
    """Show the ledger entries of a job. On a terminal, draw a chart above them."""
    api, path = connect_api(), f"/jobs/{path_segment(job)}/timeline"
    found = api.get(path, limit=limit, cursor=cursor)
    if terminal.columns() is not None and current_options().output is CliOutputFormat.TABLE and not (entries or cursor):
        _draw(found["items"] if found["next"] is None else list(api.get_all(path)))
    emit_page(
        found,
        header=("SEQ", "AT", "TYPE", "WHAT"),
        row=lambda entry: (entry["seq"], moment(entry["at"]), entry["type"], event_sentence(entry["type"], entry["data"])),
        empty="No entries yet.",
    )


def _draw(entries: list[Json]) -> None:
    from console.cli.render.gantt import gantt_lines  # noqa: PLC0415 - only a terminal needs it
    from console.presentation.timeline_model import build_timeline  # noqa: PLC0415

    for line in gantt_lines(
        build_timeline(entries), now=datetime.now(UTC), columns=terminal.columns() or terminal.DEFAULT_COLUMNS, paint=with_state_colour
    ):
        terminal.write_line(line)
    terminal.write_line("")
