"""The group of all commands: the program's own, and those that entry points add (docs/decisions/0005).

Each command is loaded when it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer
from typer._click.shell_completion import CompletionItem  # what completion returns; typer does not export it
from typer.main import get_command, get_group

from console.cli import terminal
from console.cli.command_index import COMMANDS, MODULES, SECTIONS, SERVERS, IndexEntry
from console.cli.errors import ExitCode
from console.cli.help_page import DOCS, EXIT_CODES, CliCommand, CliGroup, first_sentence, write_parameters, write_sections
from console.cli.options import command_group, with_global_options
from console.cli.version import version_text

if TYPE_CHECKING:
    from typer._click import Command, Context, HelpFormatter

ENTRY_POINT_GROUP = "justenough.commands"
"""Entry points of this group are functions `register(app, output)` that add commands to `app`.

These commands print through `output` (console.cli.command_output).
"""


def build_program() -> typer.Typer:
    return command_group(
        _accept_version,
        is_root=True,
        cls=RootGroup,
        help="Run AI jobs with just-in-time credentials, and verify afterwards that each one is revoked.",
        add_completion=True,
        context_settings={"help_option_names": ["--help", "-h"]},
    )


class RootGroup(CliGroup):
    """The program's commands, each loaded when it is used.

    Commands of other packages are loaded only if the program has no command of that name.
    """

    def list_commands(self, ctx: Context) -> list[str]:
        return list(dict.fromkeys([*COMMANDS, *self._others]))

    def get_command(self, ctx: Context, cmd_name: str) -> Command | None:
        if cmd_name not in self.commands and cmd_name in COMMANDS:
            self.commands[cmd_name] = load_command(cmd_name, COMMANDS[cmd_name])
        return self.commands.get(cmd_name) or self._others.get(cmd_name)

    def resolve_command(self, ctx: Context, args: list[str]) -> tuple[str | None, Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None:
            # For the message that suggests similar names.
            for name in COMMANDS:
                self.get_command(ctx, name)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        return [CompletionItem(name, help=text) for _, name, text in self._rows() if name.startswith(incomplete)]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        write_sections(formatter, self._rows(), SECTIONS)
        write_parameters(ctx, formatter, self.get_params(ctx))

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        formatter.write_paragraph()
        formatter.write_text(EXIT_CODES)
        formatter.write_paragraph()
        formatter.write_text(DOCS)

    def _rows(self) -> Iterator[tuple[str, str, str]]:
        for name, entry in COMMANDS.items():
            yield entry.section, name, entry.summary
        for name, command in self._others.items():
            if not command.hidden:
                yield command.rich_help_panel or SERVERS, name, first_sentence(command.help or "")

    @cached_property
    def _others(self) -> dict[str, CliCommand | CliGroup]:
        others = {name: command for name, command in load_entry_points().items() if name not in COMMANDS}
        self.commands.update(others)
        return others


def load_command(name: str, entry: IndexEntry) -> Command:
    module, _, attribute = entry.target.partition(":")
    found = getattr(import_module(f"{MODULES}.{module}"), attribute)
    if isinstance(found, typer.Typer):
        group = get_group(found)
        group.name, group.help, group.epilog = name, entry.summary, entry.docs
        return group
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name, cls=CliCommand)(found)
    return get_command(single)


def load_entry_points() -> dict[str, CliCommand | CliGroup]:
    """Load the commands of all packages that have an entry point for them, each with the global options that it does not define itself."""
    from importlib.metadata import entry_points  # noqa: PLC0415 - reads every package's metadata

    from console.cli import command_output  # noqa: PLC0415 - loads what prints

    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
        try:
            entry.load()(app, command_output)
        except ImportError as error:
            # One broken package must not take the other packages' commands away.
            terminal.write_error(f"the commands of {entry.value} could not be loaded: {error}")
    groups = [group.typer_instance for group in app.registered_groups if group.typer_instance]
    commands = [*app.registered_commands, *(command for group in groups for command in group.registered_commands)]
    if not commands:
        return {}
    for group in groups:
        group.info.cls = CliGroup
    for command in commands:
        command.cls = CliCommand
        if command.callback:
            command.callback = with_global_options(command.callback)
    # With a callback, even a single command is in a group.
    app.callback()(lambda: None)
    return dict(get_group(app).commands)  # type: ignore[arg-type] # the classes that were set above


def _print_version(is_requested: bool) -> None:
    if is_requested:
        terminal.write_line(version_text())
        raise typer.Exit(ExitCode.OK)


def _accept_version(
    show_version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    del show_version
