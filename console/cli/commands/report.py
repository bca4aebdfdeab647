"""`justenough report`: the evidence of a period, as Markdown, HTML or JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from console.cli.arguments import Out, Until, time_argument_text
from console.cli.client.connect import connect_api
from console.cli.errors import ExitCode, WrongUsage
from console.cli.files import open_output
from console.cli.options import CliOutputFormat, command, current_options
from console.cli.render.output import count_label, emit, note
from console.presentation.terminal_text import to_json_text

REPORT_TIMEOUT_S = 900.0
"""Seconds: the console reads up to six million entries, and may have to finish another report first."""


@command
def report(
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Only from this time on: an age (24h, 30d), a date or a time; default: 30 days."),
    ] = None,
    until: Until = None,
    form: Annotated[
        Literal["md", "json", "html"] | None, typer.Option("--format", metavar="FORMAT", help="Report format: md (default), json or html.")
    ] = None,
    out: Out = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit 1 if the report contains a violation.")] = False,
) -> None:
    """Report on a period of the ledger. Each figure comes with its definition, its evidence and the framework controls it supports.

    Examples:
    justenough report --since 30d --format html --out report.html

    """
    output = current_options().output
    if form is None and out is not None and output is CliOutputFormat.JSON:
        form = "json"
    elif out is not None and output in {CliOutputFormat.YAML, CliOutputFormat.NAME}:
        raise WrongUsage(f"--out cannot be combined with -o {output}; give --format md, json or html")
    now = datetime.now(UTC)
    begin, end = time_argument_text("--since", since, now=now), time_argument_text("--until", until, now=now)
    note("Reading the ledger; a million entries take about ten seconds.")
    content = connect_api().get_once("/report", timeout_s=REPORT_TIMEOUT_S, since=begin, until=end)
    if form is None and output is not CliOutputFormat.TABLE and out is None:
        lines = [line for section in content["sections"] for line in section["lines"]]
        emit(content, table=lambda _: None, names=lambda _: (line["key"] for line in lines if line["status"] != "ok"))
    else:
        if form == "json":
            text = to_json_text(content, indent=2) + "\n"
        else:
            from console.presentation.report import html, markdown  # noqa: PLC0415 - most commands need neither pydantic nor templates
            from justenough.domain.evidence.report import Report  # noqa: PLC0415 - the same

            evidence = Report.model_validate(content)
            text = html.render_html(evidence) if form == "html" else markdown.render_markdown(evidence)
        with open_output(out) as file:
            file.write(text)
    note(f"{content['status']}: {count_label(content['entries'], 'entry', 'entries')} read{f', report written to {out}' if out else ''}.")
    if exit_code and content["status"] == "violation":
        raise typer.Exit(ExitCode.FAILURE)
