"""Prints the results of commands on stdout: as JSON, YAML, names or a table. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import typer

from console.cli import terminal
from console.cli.errors import ExitCode
from console.cli.json_object import Json
from console.cli.options import CliOutputFormat, current_options
from console.cli.render.table import Cells, TableLayout, table_lines
from console.presentation.status_badges import BADGES, state_word
from console.presentation.terminal_text import colour_text, has_hidden, pad, plain, to_json_text, width

COLOUR_BY_TONE = {"good": "green", "live": "yellow", "wait": "yellow", "calm": "yellow", "bad": "red"}
COLOUR_BY_STATE = {
    "sound": "green",
    "dead": "green",
    "waits": "yellow",
    "refused": "red",
    "alive": "red",
    "unknown": "red",
    **{
        name: COLOUR_BY_TONE[badge.tone]
        for kind in ("finding", "outcome", "revocation", "request", "job", "credential")
        for state, badge in BADGES[kind].items()
        for name in (state, badge.word)
    },
}
"""The colours of states, by their names and by their words. A word that several kinds share has the colour of the last kind."""


def emit(value: Json, *, table: Callable[[Json], None], name: str = "id", names: Callable[[Json], Iterable[object]] | None = None) -> None:
    """Print a value in the requested output format. `-o name` prints `names`, or else the field `name` of the value or of each of its items."""
    match current_options().output:
        case CliOutputFormat.JSON:
            terminal.write_line(to_json_text(value, indent=2))
        case CliOutputFormat.YAML:
            import yaml  # noqa: PLC0415 - loads slowly, and only this format needs it

            text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000)
            # YAML has no escapes for some characters only.
            terminal.write(yaml.safe_dump(value, sort_keys=False, width=1000) if has_hidden(text) else text)
        case CliOutputFormat.NAME:
            for shown in names(value) if names else (item[name] for item in value.get("items", [value])):
                terminal.write_line(plain(shown))
        case CliOutputFormat.TABLE:
            table(value)


def emit_page(
    value: Json, *, header: Cells, row: Callable[[Json], Cells], empty: str, name: str = "id", optional: Sequence[str] = ()
) -> None:
    """Print a page of a list. On stderr, note an empty list, or how to get the next page."""

    def table(page: Json) -> None:
        if page["items"]:
            print_table(header, [row(item) for item in page["items"]], optional=optional)
        elif page["next"] is None:
            note(empty)

    emit(value, table=table, names=lambda page: dict.fromkeys(item[name] for item in page["items"]))
    if value["next"]:
        note(f"More results: add --all-pages, or for the next page --cursor {value['next']}")


def emit_items(items: Sequence[Json], *, header: Cells, row: Callable[[Json], Cells], is_list: bool = False) -> None:
    """Print the items that a command changed. `is_list`: print the JSON as a list, even of one item."""
    value = {"items": items, "next": None} if is_list else items[0]
    emit(value, table=lambda _: print_table(header, [row(item) for item in items]))


def emit_requests(items: Sequence[Json], *, title: str, cell: Callable[[Json], object], is_list: bool) -> None:
    """Print the requests that a command changed. `title`, `cell`: the title of the last column, and the function that returns its text."""
    emit_items(
        items,
        header=("ID", "RESOURCE", "ACTION", "STATE", title),
        row=lambda item: (item["id"], item["resource"], item["action"], state_word("request", item["state"]), cell(item)),
        is_list=is_list,
    )


def note(text: str) -> None:
    """Print a message on stderr, nothing with --quiet."""
    if not current_options().quiet:
        terminal.write_message(text)


def emit_revocation(
    report: Json,
    *,
    is_confirmed: bool,
    table: Callable[[Json], None],
    name: str = "id",
    names: Callable[[Json], Iterable[object]] | None = None,
) -> None:
    """Print a report of a revocation and, on stderr, its next steps. Exit 9 unless the revocation is confirmed."""
    emit(report, table=table, name=name, names=names)
    for sentence in report["next"]:
        note(sentence)
    if not is_confirmed:
        raise typer.Exit(ExitCode.NOT_CONFIRMED)


def print_table(header: Cells, rows: Sequence[Cells], *, optional: Sequence[str] = ()) -> None:
    """Print a table as the options say. On a terminal it fits: `optional` columns are left out, ids shortened and the last column cut."""
    options = current_options()
    layout = TableLayout(None if options.wide else terminal.columns(), options.columns, options.sort, optional=optional)
    for line in table_lines(header, rows, layout, paint=with_state_colour):
        terminal.write_line(line)


def print_section(header: Cells, rows: Sequence[Cells]) -> None:
    """Print a blank line and a table; nothing if it has no rows."""
    if rows:
        terminal.write_line("")
        print_table(header, rows)


def print_fields(*pairs: tuple[str, object]) -> None:
    """Print one name and value per line. Values that are None or empty are left out."""
    known = [(name, plain(value)) for name, value in pairs if value not in {None, ""}]
    columns = max((width(name) for name, _ in known), default=0) + 1
    for name, value in known:
        terminal.write_line(f"{pad(f'{name}:', columns)} {with_state_colour(value)}".rstrip())


def with_state_colour(cell: str, state: str | None = None, *, stream: object = None) -> str:
    """Colour a cell by its state (default: the cell's own text), if the stream shows colours. The text stays the same."""
    if not terminal.shows_colours(stream):
        return cell
    word = cell.strip() if state is None else state
    return colour_text(cell, COLOUR_BY_STATE[word]) if word in COLOUR_BY_STATE else cell


def count_label(number: int, singular: str, plural: str = "") -> str:
    """Return a number with its noun: `1 job`, `1,200 jobs`."""
    return f"{number:,} {singular if number == 1 else plural or singular + 's'}"


def join_values(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))


def join_pairs(values: Json) -> str:
    return join_values(f"{name}={value}" for name, value in values.items())
