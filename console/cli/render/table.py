"""Tables that fit their terminal: columns are chosen and sorted, ids shortened, the last column cut.

In pipes and files, tables are printed in full. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from console.cli.errors import WrongUsage
from console.presentation.terminal_text import pad, plain, truncate, width

Cells = Sequence[object]
Paint = Callable[[str], str]

GAP = "  "
MIN_LAST_COLUMN_WIDTH = 12
"""Minimum width of a truncated last column; a table without room for it leaves columns out."""
MAX_CELL_WIDTH = 24
"""Maximum width of any other column in a table that does not fit. Short ids and states are narrower."""
SHORT_ID_CHARS = 10
"""Characters of an id's time-sortable part in a short id: its millisecond. More are shown if several ids of a table begin alike."""
LONG_ID = re.compile(r"([jrc]-[a-z0-9]{1,8}-)([0-9a-hjkmnp-tv-z]{26})((?:-\d+(?:\.\d+)?)?)")
NUMBER = re.compile(r"-?\d+(\.\d+)?")
DURATION = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+) ?s)?")
SECONDS = (86_400, 3_600, 60, 1)
"""Seconds of each part of DURATION."""


@dataclass(frozen=True, slots=True)
class TableLayout:
    """How a table is shown: the width in columns that it must fit (None: print in full), and the options that its reader chose."""

    max_columns: int | None = None
    chosen: str | None = None
    """Names of columns, separated by commas; None for all that fit."""
    sort: str | None = None
    """The column to sort by; with - before it, in descending order."""
    optional: Sequence[str] = ()
    """Columns that may be left out on a narrow terminal, in this order."""


def table_lines(header: Cells, rows: Sequence[Cells], layout: TableLayout, *, paint: Paint) -> Iterator[str]:
    """Yield the lines of a table. Raises Failure for an unknown column."""
    table = [[plain("" if cell is None else cell) for cell in line] for line in [header, *rows]]
    table = choose_columns(sort_rows(table, layout.sort), layout.chosen)
    if layout.max_columns is not None:
        table = shorten_ids(table)
        optional = () if layout.chosen else layout.optional
        table = leave_out_columns(table, optional, layout.max_columns)
        if not _fits(table, layout.max_columns):
            table = [[*(truncate(cell, MAX_CELL_WIDTH) for cell in line[:-1]), line[-1]] for line in table]
        if not _fits(table, layout.max_columns):
            for line in table[1:]:
                yield from _folded_row(table[0], line, layout.max_columns, paint)
            return
    widths = _widths(table)
    if layout.max_columns is not None:
        widths[-1] = min(widths[-1], layout.max_columns - sum(widths[:-1]) - len(GAP) * (len(widths) - 1))
    for number, line in enumerate(table):
        cells = [pad(truncate(cell, columns), columns) for cell, columns in zip(line, widths, strict=True)]
        shown = cells if number == 0 else [paint(cell) for cell in cells]
        # Trailing padding could wrap the line.
        yield GAP.join([*shown[:-1], shown[-1].rstrip()]).rstrip()


def shorten_ids_in(text: str) -> str:
    return LONG_ID.sub(lambda match: f"{match[1]}{match[2][:SHORT_ID_CHARS]}{match[3]}", text)


def shorten_ids(table: list[list[str]]) -> list[list[str]]:
    """Shorten the ids in cells that contain only an id, so that different ids stay different.

    Every command resolves each short id to the same id.
    """
    found = {match[2] for line in table[1:] for cell in line if (match := LONG_ID.fullmatch(cell))}
    length = next(n for n in range(SHORT_ID_CHARS, 27) if len({part[:n] for part in found}) == len(found))

    def shorten(cell: str) -> str:
        match = LONG_ID.fullmatch(cell)
        return f"{match[1]}{match[2][:length]}{match[3]}" if match else cell

    return [table[0], *([shorten(cell) for cell in line] for line in table[1:])]


def sort_rows(table: list[list[str]], sort: str | None) -> list[list[str]]:
    if sort is None:
        return table
    column = _column_number(table[0], sort.removeprefix("-"), "--sort")

    def key(line: list[str]) -> tuple[bool, float, str]:
        cell = line[column]
        if cell and (parts := DURATION.fullmatch(cell)):
            return False, sum(seconds * int(part or 0) for seconds, part in zip(SECONDS, parts.groups(), strict=True)), cell
        is_number = NUMBER.fullmatch(cell) is not None
        return not is_number, float(cell) if is_number else 0.0, cell

    return [table[0], *sorted(table[1:], key=key, reverse=sort.startswith("-"))]


def choose_columns(table: list[list[str]], chosen: str | None) -> list[list[str]]:
    if chosen is None:
        return table
    numbers = [_column_number(table[0], name.strip(), "--columns") for name in chosen.split(",")]
    return [[line[number] for number in numbers] for line in table]


def _column_number(header: Sequence[str], name: str, option: str) -> int:
    # `reason-by` for REASON BY.
    keys = [str(title).lower().replace(" ", "-") for title in header]
    if name.lower() not in keys:
        raise WrongUsage(f"{option}: there is no column {name}; the columns are {', '.join(filter(None, keys))}")
    return keys.index(name.lower())


def leave_out_columns(table: list[list[str]], optional: Sequence[str], max_columns: int) -> list[list[str]]:
    for title in optional:
        if _fits(table, max_columns):
            break
        if title in table[0]:
            number = table[0].index(title)
            table = [[*line[:number], *line[number + 1 :]] for line in table]
    return table


def _widths(table: Sequence[Sequence[str]]) -> list[int]:
    return [max(width(line[column]) for line in table) for column in range(len(table[0]))]


def _fits(table: Sequence[Sequence[str]], max_columns: int) -> bool:
    widths = _widths(table)
    return sum(widths[:-1]) + len(GAP) * (len(widths) - 1) + min(widths[-1], MIN_LAST_COLUMN_WIDTH) <= max_columns


def _folded_row(header: Sequence[str], line: Sequence[str], max_columns: int, paint: Paint) -> Iterator[str]:
    """Yield a row's first cell; then, indented, the other cells with their headers, as many per line as fit."""
    first, *others = line
    yield paint(first)
    parts, used = "", 0
    for name, cell in zip(header[1:], others, strict=True):
        value = truncate(cell, max(max_columns - width(name) - len(GAP) - 1, MIN_LAST_COLUMN_WIDTH))
        needed = len(GAP) + width(name) + 1 + width(value)
        if used and used + needed > max_columns:
            yield parts
            parts, used = "", 0
        if cell:
            parts += f"{GAP}{name} {paint(value)}"
            used += needed
    if used:
        yield parts
