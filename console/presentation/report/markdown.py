"""The report as Markdown. Text from jobs and people is escaped: it cannot become a link, code or a table cell. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from console.presentation.report.figures import cells, columns, figures, is_number
from console.presentation.terminal_text import moment, plain
from justenough.domain.evidence.report import Line, Report, Table

# Every character that Markdown, or HTML inside it, could interpret as markup.
SPECIAL_CHARACTERS = re.compile(r"([\\`*_\[\]<>|~#!&$@])")
URL_PREFIX = re.compile(r"(https?|ftp|mailto|www)([:.])", re.IGNORECASE)


def render_markdown(report: Report) -> str:
    """Return the report as Markdown."""
    return "\n".join([*_head(report), *(text for section in report.sections for text in _section(section.title, section.lines))]) + "\n"


def escape_markdown(text: object) -> str:
    """Return text on one line with every markup character escaped."""
    # Break up addresses: renderers turn bare ones into links.
    return URL_PREFIX.sub("\\1\u200b\\2", SPECIAL_CHARACTERS.sub(r"\\\1", plain(text)))


def _head(report: Report) -> Iterator[str]:
    yield f"# Evidence report: {escape_markdown(report.installation)}"
    yield ""
    yield f"{moment(report.since.isoformat())} to {moment(report.until.isoformat())}, generated {moment(report.generated_at.isoformat())}"
    yield f"from {report.entries:,} ledger entries. Status: **{report.status.value}**."
    yield ""
    yield "| metric | status | figures |"
    yield "| --- | --- | --- |"
    for line in report.lines:
        yield f"| {escape_markdown(line.title)} | {line.status.value if line.status.value == 'ok' else f'**{line.status.value}**'} | {'; '.join(f'{escape_markdown(name)} {escape_markdown(value)}' for name, value in figures(line))} |"


def _section(title: str, lines: tuple[Line, ...]) -> Iterator[str]:
    yield from ("", f"## {escape_markdown(title)}")
    for line in lines:
        yield from ("", f"### {escape_markdown(line.title)}: {line.status.value}", "")
        yield from (f"- {escape_markdown(name)}: {escape_markdown(value)}" for name, value in figures(line))
        if line.table is not None and line.table.rows:
            yield from ("", *_table(line.table))
        yield ""
        yield f"{escape_markdown(line.definition)} Rule: {escape_markdown(line.rule)}. Shows: {escape_markdown(line.shows)}"
        yield ""
        yield f"Maps to: {'; '.join(f'{escape_markdown(item.id)} ({escape_markdown(item.name)})' for item in line.items)}."
        yield from _evidence(line)


def _table(table: Table) -> Iterator[str]:
    yield f"| {' | '.join(map(escape_markdown, columns(table)))} |"
    yield f"| {' | '.join('---:' if is_number(value) else '---' for value in table.rows[0])} |"
    for row in cells(table):
        yield f"| {' | '.join(map(escape_markdown, row))} |"
    if table.left_out:
        yield from ("", f"and {table.left_out:,} more.")


def _evidence(line: Line) -> Iterator[str]:
    evidence = line.evidence
    if not evidence.count:
        return
    yield ""
    rest = "" if evidence.command is None else f" (first {len(evidence.ids)} shown; `{plain(evidence.command).replace('`', '')}` lists all)"
    yield f"Evidence: {evidence.count:,} ledger {'entry' if evidence.count == 1 else 'entries'}{rest}"
    yield ""
    yield from (f"- {escape_markdown(entry)}" for entry in evidence.ids)
