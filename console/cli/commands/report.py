"""`justenough report`: the evidence of a period, as Markdown, HTML or JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from console.cli.client.api import connect_api
from console.cli.commands.ledger import open_output
from console.cli.errors import ExitCode
from console.cli.json_object import Json
from console.cli.options import CliOutputFormat, command, current_options
from console.cli.render.output import emit, note
from console.cli.time_arguments import time_argument_text

REPORT_TIMEOUT_S = 900.0
"""Seconds: the console reads up to six million entries, and may have to finish another report first."""


class ReportFormat(StrEnum):
    MD = "md"
    JSON = "json"
    HTML = "html"


@command
def report(
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Only from this time on: an age (24h, 30d), a date or a time.")
    ] = "30d",
    until: Annotated[
        str | None,
        typer.Option("--until", metavar="TIME", help="Only before this time (same formats as --since); default: now.", show_default=False),
    ] = None,
    form: Annotated[ReportFormat | None, typer.Option("--format", help="md (default), json or html.", show_default=False)] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Write to this file instead of stdout.", show_default=False)
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 if a line is a violation.")] = False,
) -> None:
    """Report on a period of the ledger: each figure with its definition, its evidence and the framework controls it supports."""
    now = datetime.now(UTC)
    begin, end = time_argument_text("--since", since, now=now), time_argument_text("--until", until, now=now)
    note("Reading the ledger; a million entries take about ten seconds.")
    content = connect_api().get_once("/report", timeout_s=REPORT_TIMEOUT_S, since=begin, until=end)
    if form is None and current_options().output is not CliOutputFormat.TABLE and out is None:
        emit(content, table=lambda _: None, names=_keys_not_ok)
    else:
        with open_output(out) as file:
            file.write(_render(content, form or ReportFormat.MD))
    note(f"{content['status']}: {content['entries']:,} entries{f', in {out}' if out else ''}.")
    if exit_code and content["status"] == "violation":
        raise typer.Exit(ExitCode.FAILURE)


def _render(content: Json, form: ReportFormat) -> str:
    if form is ReportFormat.JSON:
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    from console.presentation.report import html, markdown  # noqa: PLC0415 - most commands need neither pydantic nor templates
    from justenough.domain.evidence.report import Report  # noqa: PLC0415 - the same

    report = Report.model_validate(content)
    return html.render_html(report) if form is ReportFormat.HTML else markdown.render_markdown(report)


def _keys_not_ok(content: Json) -> list[str]:
    """Return the keys of the lines that are not ok."""
    return [line["key"] for section in content["sections"] for line in section["lines"] if line["status"] != "ok"]
