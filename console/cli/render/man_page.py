"""Manual pages in troff's man format (man-pages(7)), from the commands' own texts. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer
from typer.core import TyperGroup

from console.cli.help_page import EXAMPLES, EXIT_CODES, SHARED_OPTIONS, first_sentence, parameter_sections
from console.cli.version import version_text

if TYPE_CHECKING:
    from typer._click import Command, Context


def man_page(root: Context, words: Sequence[str]) -> str | None:
    """Return the page of the command that the words name; None if there is no such command."""
    context = root
    for word in words:
        command = context.command.get_command(context, word) if isinstance(context.command, TyperGroup) else None
        if command is None:
            return None
        context = typer.Context(command, info_name=word, parent=context)
    return "\n".join(page_lines(context)) + "\n"


def man_pages(context: Context) -> dict[str, str]:
    """Return the pages of a command and of all commands in it, by the names of their files without `.1`."""
    pages = {context.command_path.replace(" ", "-"): "\n".join(page_lines(context)) + "\n"}
    for name, command in _commands(context):
        pages |= man_pages(typer.Context(command, info_name=name, parent=context))
    return pages


def _commands(context: Context) -> Iterator[tuple[str, Command]]:
    group = context.command
    if not isinstance(group, TyperGroup):
        return
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command and not command.hidden:
            yield name, command


def page_lines(context: Context) -> Iterator[str]:
    command, path = context.command, context.command_path
    text, _, examples = (command.help or "").partition(EXAMPLES)
    yield f'.TH "{path.replace(" ", "-").upper()}" 1 "" "justenough {version_text()}"'
    yield f".SH NAME\n{_escape(path.replace(' ', '-'))} \\- {_escape(first_sentence(text).removesuffix('.'))}"
    yield f".SH SYNOPSIS\n.B {_escape(path)}\n{_escape(' '.join(command.collect_usage_pieces(context)))}"
    yield f".SH DESCRIPTION\n{_escape(text)}"
    if commands := list(_commands(context)):
        yield ".SH COMMANDS"
        for name, inner in commands:
            yield f".TP\n.B {_escape(name)}\n{_escape(first_sentence(inner.help or ''))}"
    params = [param for param in command.get_params(context) if context.parent is None or param.name not in SHARED_OPTIONS]
    for title, rows in parameter_sections(context, params):
        yield f".SH {title.upper()}"
        yield from (f".TP\n.B {_escape(name)}\n{_escape(meaning)}" for name, meaning in rows)
    if examples:
        yield f".SH EXAMPLES\n.nf\n{_escape(examples)}\n.fi"
    yield f'.SH "EXIT STATUS"\n{_escape(EXIT_CODES)}'
    if context.parent is not None:
        yield '.SH "SEE ALSO"\njustenough(1), which lists the options of all commands'


def _escape(text: str) -> str:
    """Escape everything in a text that troff would read as an instruction."""
    lines = (line.strip() for line in text.replace("\\", "\\e").replace("-", "\\-").splitlines())
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)
