"""`justenough report`: the evidence of a period, as Markdown, HTML or JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from console.cli.client.api import Json, connected
from console.cli.commands.ledger import written
from console.cli.errors import Exit
from console.cli.options import Output, command, current
from console.cli.render.output import emit, note
from console.cli.time_arguments import moment_text

PATIENCE = 900.0
"""Seconds: the console reads up to six million entries, and another's report may come first."""


class Format(StrEnum):
    MD = "md"
    JSON = "json"
    HTML = "html"


@command
def report(
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From when on: how long ago (24h, 30d), or a date or time.")
    ] = "30d",
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Before when, written alike; default: now.", show_default=False)
    ] = None,
    form: Annotated[Format | None, typer.Option("--format", help="md (default), json or html.", show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write there instead of stdout.", show_default=False)] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 where a line is a violation.")] = False,
) -> None:
    """Report what a period's ledger shows: each figure with its definition, its evidence, and the framework items it bears on."""
    now = datetime.now(UTC)
    begin, end = moment_text("--since", since, now=now), moment_text("--until", until, now=now)
    note("Reading the ledger; a million entries take about ten seconds.")
    told = connected().get_patiently("/report", seconds=PATIENCE, since=begin, until=end)
    if form is None and current().output is not Output.TABLE and out is None:
        emit(told, table=lambda _: None, names=_names)
    else:
        with written(out) as file:
            file.write(_rendered(told, form or Format.MD))
    note(f"{told['status']}: {told['entries']:,} entries{f', in {out}' if out else ''}.")
    if exit_code and told["status"] == "violation":
        raise typer.Exit(Exit.FAILURE)


def _rendered(told: Json, form: Format) -> str:
    if form is Format.JSON:
        return json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    from console.presentation.report import html, markdown  # noqa: PLC0415 - most commands need neither pydantic nor templates
    from justenough.domain.evidence.report import Report  # noqa: PLC0415 - the same

    report = Report.model_validate(told)
    return html.rendered(report) if form is Format.HTML else markdown.rendered(report)


def _names(told: Json) -> list[str]:
    """Return the lines that are not ok."""
    return [line["key"] for section in told["sections"] for line in section["lines"] if line["status"] != "ok"]
