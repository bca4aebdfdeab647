"""What a command prints on stdout: the API's own objects as JSON or YAML, ids, or a table for people. Decides nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from console.cli import terminal
from console.cli.options import Output, current
from console.presentation.terminal_text import padded, painted, plain, shortened, width

Json = dict[str, Any]
Cells = Sequence[object]

COLOURS = {
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
NARROWEST = 12
"""Columns that a cut last column keeps at least; a table without room for them is folded."""


def emit(value: Json, *, table: Callable[[Json], None], names: Callable[[Json], Iterable[object]]) -> None:
    """Print a value in the form that was asked for."""
    match current().output:
        case Output.JSON:
            terminal.line(json.dumps(value, indent=2, ensure_ascii=False))
        case Output.YAML:
            terminal.write(_yaml(value))
        case Output.NAME:
            for name in names(value):
                terminal.line(plain(name))
        case Output.TABLE:
            table(value)


def emit_page(value: Json, *, header: Cells, row: Callable[[Json], Cells], empty: str, name: str = "id") -> None:
    """Print a page of a list; on stderr, that it is empty or how to see the next one."""

    def table(page: Json) -> None:
        if page["items"]:
            rows(header, [row(item) for item in page["items"]])
        else:
            note(empty)

    emit(value, table=table, names=lambda page: (item[name] for item in page["items"]))
    if value["next"]:
        note(f"There are more: --cursor {value['next']}")


def note(text: str) -> None:
    """Tell people something beside the data; nothing with --quiet."""
    if not current().quiet:
        terminal.tell(text)


def told(report: Json) -> None:
    """Tell what to do next, on stderr."""
    for sentence in report["next"]:
        note(sentence)


def rows(header: Cells, lines: Sequence[Cells]) -> None:
    """Print columns. Off a terminal nothing is cut; on one, the last column is, and a table that is still too wide is folded."""
    for line in laid_out(header, lines, room=terminal.columns()):
        terminal.line(line)


def laid_out(header: Cells, lines: Sequence[Cells], *, room: int | None) -> Iterator[str]:
    """Yield the lines of a table in so many columns; None: nothing is cut."""
    table = [[plain("" if cell is None else cell) for cell in line] for line in [header, *lines]]
    widths = [max(width(line[column]) for line in table) for column in range(len(header))]
    taken = sum(widths[:-1]) + len(GAP) * (len(widths) - 1)
    if room is not None and taken + min(widths[-1], NARROWEST) > room:
        for line in table[1:]:
            yield from _folded(table[0], line, room)
        return
    if room is not None:
        widths[-1] = min(widths[-1], room - taken)
    for number, line in enumerate(table):
        cells = [padded(shortened(cell, columns), columns) for cell, columns in zip(line, widths, strict=True)]
        shown = cells if number == 0 else [coloured(cell) for cell in cells]
        # Padding at the end would only wrap.
        yield GAP.join([*shown[:-1], shown[-1].rstrip()]).rstrip()


def _folded(header: Sequence[str], line: Sequence[str], room: int) -> Iterator[str]:
    """Yield a row's first cell, and below it, indented, the others with their names, as many on a line as fit."""
    first, *others = line
    yield coloured(first)
    parts, used = "", 0
    for name, cell in zip(header[1:], others, strict=True):
        value = shortened(cell, max(room - width(name) - len(GAP) - 1, NARROWEST))
        needed = len(GAP) + width(name) + 1 + width(value)
        if used and used + needed > room:
            yield parts
            parts, used = "", 0
        if cell:
            parts += f"{GAP}{name} {coloured(value)}"
            used += needed
    if used:
        yield parts


def fields(pairs: Iterable[tuple[str, object]]) -> None:
    """Print names and values below each other; what is None or empty is left out."""
    known = [(name, plain(value)) for name, value in pairs if value not in {None, ""}]
    columns = max((width(name) for name, _ in known), default=0) + 1
    for name, value in known:
        terminal.line(f"{padded(f'{name}:', columns)} {coloured(value)}".rstrip())


def coloured(cell: str, state: str | None = None, *, stream: object = None) -> str:
    """Return a cell with the colour of its state (by default the cell's own word) where there are colours. The word always stays."""
    if not terminal.colours(stream):
        return cell
    word = cell.strip() if state is None else state
    return next((painted(cell, colour) for colour, words in COLOURS.items() if word in words), cell)


def joined(values: Iterable[object]) -> str:
    """Return several values in one cell."""
    return ", ".join(map(str, values))


def pairs(values: Json) -> str:
    """Return a flat map in one cell."""
    return joined(f"{name}={value}" for name, value in values.items())


def _yaml(value: Json) -> str:
    import yaml  # noqa: PLC0415 - only this form needs it

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000))
