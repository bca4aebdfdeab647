"""What a command prints on stdout: the API's own objects as JSON or YAML, ids, or a table for people. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from console.cli import terminal
from console.cli.json_object import Json
from console.cli.options import CliOutputFormat, current_options
from console.presentation.terminal_text import colour_text, pad, plain, truncate, width

Cells = Sequence[object]

STATES_BY_COLOUR = {
    "green": {"succeeded", "allowed", "approved", "confirmed", "sound", "dead"},
    "yellow": {
        "pending",
        "awaiting_approval",
        "running",
        "revoking",
        "needs_approval",
        "issued",
        "revoked",
        "expired",
        "cancelled",
        "withdrawn",
        "waits",
        "doubted",
    },
    "red": {"failed", "refused", "denied", "timed_out", "killed", "lost", "overdue", "alive", "not seen"},
}
GAP = "  "
MIN_LAST_COLUMN_WIDTH = 12
"""Columns that a cut last column keeps at least; a table without room for them is folded."""


def emit(value: Json, *, table: Callable[[Json], None], names: Callable[[Json], Iterable[object]]) -> None:
    """Print a value in the form that was asked for."""
    match current_options().output:
        case CliOutputFormat.JSON:
            terminal.write_line(json.dumps(value, indent=2, ensure_ascii=False))
        case CliOutputFormat.YAML:
            terminal.write(_to_yaml(value))
        case CliOutputFormat.NAME:
            for name in names(value):
                terminal.write_line(plain(name))
        case CliOutputFormat.TABLE:
            table(value)


def emit_page(value: Json, *, header: Cells, row: Callable[[Json], Cells], empty: str, name: str = "id") -> None:
    """Print a page of a list; on stderr, that it is empty or how to see the next one."""

    def table(page: Json) -> None:
        if page["items"]:
            print_table(header, [row(item) for item in page["items"]])
        else:
            note(empty)

    emit(value, table=table, names=lambda page: (item[name] for item in page["items"]))
    if value["next"]:
        note(f"There are more: --cursor {value['next']}")


def note(text: str) -> None:
    """Tell people something beside the data; nothing with --quiet."""
    if not current_options().quiet:
        terminal.write_message(text)


def print_next_steps(report: Json) -> None:
    """Tell what to do next, on stderr."""
    for sentence in report["next"]:
        note(sentence)


def print_table(header: Cells, lines: Sequence[Cells]) -> None:
    """Print columns. Off a terminal nothing is cut; on one, the last column is, and a table that is still too wide is folded."""
    for line in table_lines(header, lines, max_columns=terminal.columns()):
        terminal.write_line(line)


def table_lines(header: Cells, lines: Sequence[Cells], *, max_columns: int | None) -> Iterator[str]:
    """Yield the lines of a table in so many columns; None: nothing is cut."""
    table = [[plain("" if cell is None else cell) for cell in line] for line in [header, *lines]]
    widths = [max(width(line[column]) for line in table) for column in range(len(header))]
    taken = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    if max_columns is not None and taken + min(widths[-1], MIN_LAST_COLUMN_WIDTH) > max_columns:
        for line in table[1:]:
            yield from _folded_row(table[0], line, max_columns)
        return
    if max_columns is not None:
        widths[-1] = min(widths[-1], max_columns - taken)
    for number, line in enumerate(table):
        cells = [pad(truncate(cell, columns), columns) for cell, columns in zip(line, widths, strict=True)]
        shown = cells if number == 0 else [with_state_colour(cell) for cell in cells]
        # Padding at the end would only wrap.
        yield GAP.join([*shown[:-1], shown[-1].rstrip()]).rstrip()


def _folded_row(header: Sequence[str], line: Sequence[str], max_columns: int) -> Iterator[str]:
    """Yield a row's first cell, and below it, indented, the others with their names, as many on a line as fit."""
    first, *others = line
    yield with_state_colour(first)
    parts, used = "", 0
    for name, cell in zip(header[1:], others, strict=True):
        value = truncate(cell, max(max_columns - width(name) - len(GAP) - 1, MIN_LAST_COLUMN_WIDTH))
        needed = len(GAP) + width(name) + 1 + width(value)
        if used and used + needed > max_columns:
            yield parts
            parts, used = "", 0
        if cell:
            parts += f"{GAP}{name} {with_state_colour(value)}"
            used += needed
    if used:
        yield parts


def print_fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values below each other; what is None or empty is left out."""
    known = [(name, plain(value)) for name, value in pairs if value not in {None, ""}]
    columns = max((width(name) for name, _ in known), default=0) + 1
    for name, value in known:
        terminal.write_line(f"{pad(f'{name}:', columns)} {with_state_colour(value)}".rstrip())


def with_state_colour(cell: str, state: str | None = None, *, stream: object = None) -> str:
    """Return a cell with the colour of its state (by default the cell's own word) where there are colours. The word always stays."""
    if not terminal.shows_colours(stream):
        return cell
    word = cell.strip() if state is None else state
    return next((colour_text(cell, colour) for colour, words in STATES_BY_COLOUR.items() if word in words), cell)


def join_values(values: Iterable[object]) -> str:
    """Return several values in one cell."""
    return ", ".join(map(str, values))


def join_pairs(values: Json) -> str:
    """Return a flat map in one cell."""
    return join_values(f"{name}={value}" for name, value in values.items())


def _to_yaml(value: Json) -> str:
    import yaml  # noqa: PLC0415 - only this form needs it

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000))
