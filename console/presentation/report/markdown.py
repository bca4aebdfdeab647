"""The report as Markdown. Text from jobs and people is escaped: it cannot become a link, code or a table cell. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from console.presentation.report.figures import cells, columns, figures, is_number
from console.presentation.terminal_text import moment, plain
from justenough.domain.evidence.report import Line, Report

# Every character that Markdown, or HTML inside it, could interpret as markup.
SPECIAL_CHARACTERS = re.compile(r"([\\`*_\[\]<>|~#!&$@])")
URL_PREFIX = re.compile(r"(https?|ftp|mailto|www)([:.])", re.IGNORECASE)


def render_markdown(report: Report) -> str:
    lines = [
        f"# Evidence report: {escape_markdown(report.installation)}",
        "",
        f"{moment(report.since.isoformat())} to {moment(report.until.isoformat())}, generated {moment(report.generated_at.isoformat())}",
        f"from {report.entries:,} ledger entries. Status: **{report.status.value}**.",
        "",
        "| metric | status | figures |",
        "| --- | --- | --- |",
    ]
    for line in report.lines:
        status = line.status.value if line.status.value == "ok" else f"**{line.status.value}**"
        values = "; ".join(f"{escape_markdown(name)} {escape_markdown(value)}" for name, value in figures(line))
        lines.append(f"| {escape_markdown(line.title)} | {status} | {values} |")
    for section in report.sections:
        lines += ["", f"## {escape_markdown(section.title)}"]
        for line in section.lines:
            lines += _metric(line)
    return "\n".join(lines) + "\n"


def escape_markdown(text: object) -> str:
    """Return the text on one line, with every markup character escaped."""
    # Break up addresses: renderers turn bare ones into links.
    return URL_PREFIX.sub("\\1\u200b\\2", SPECIAL_CHARACTERS.sub(r"\\\1", plain(text)))


def _metric(line: Line) -> Iterator[str]:
    yield from ("", f"### {escape_markdown(line.title)}: {line.status.value}", "")
    yield from (f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in figures(line))
    if line.table is not None and line.table.rows:
        aligned = ["---:" if is_number(value) else "---" for value in line.table.rows[0]]
        rows = [map(escape_markdown, columns(line.table)), aligned, *(map(escape_markdown, row) for row in cells(line.table))]
        yield ""
        yield from (f"| {' | '.join(row)} |" for row in rows)
        if line.table.left_out:
            yield from ("", f"and {line.table.left_out:,} more.")
    yield from ("", f"{escape_markdown(line.definition)} Rule: {escape_markdown(line.rule)}. Shows: {escape_markdown(line.shows)}")
    yield from ("", f"Maps to: {'; '.join(f'{escape_markdown(item.id)} ({escape_markdown(item.name)})' for item in line.items)}.")
    evidence = line.evidence
    if evidence.count:
        command = f" (first {len(evidence.ids)} shown; `{plain(evidence.command).replace('`', '')}` lists all)" if evidence.command else ""
        yield from ("", f"Evidence: {evidence.count:,} ledger {'entry' if evidence.count == 1 else 'entries'}{command}", "")
        yield from (f"- {escape_markdown(entry)}" for entry in evidence.ids)
