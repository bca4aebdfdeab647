"""The program `justenough`: its own commands, and those that entry points add (docs/decisions/0005)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated

import typer

from console.cli import command_output, terminal
from console.cli.commands import catalog, credential, delegation, init, job, ledger, login, policy, request, review, schedule, webhook
from console.cli.commands.find import find
from console.cli.commands.report import report
from console.cli.commands.sweep import sweep
from console.cli.errors import ExitCode
from console.cli.options import command, command_group, with_global_options
from justenough.adapters.runtime import gc_tuning

ENTRY_POINT_GROUP = "justenough.commands"
"""Entry points of this group are functions `register(app, output)` that add commands to `app`, which print by `output` (console.cli.command_output)."""
COMMAND_GROUPS = (job, request, review, delegation, credential, schedule, ledger, webhook, catalog, policy)
OPTIONS_WITH_VALUE = {"-o", "--output", "--profile", "--console-url"}
"""Options that may come before a command and take the next word as their value."""


def main() -> None:
    """Run the program with this process's arguments."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # text streams have it, replaced ones may not
    program(sys.argv[1:])(prog_name="justenough")


def program(arguments: Sequence[str]) -> typer.Typer:
    """Build the program. If the arguments name one of its own commands or groups, it has only that one: the others take time to build."""
    summary = "Run AI jobs with just-in-time credentials, and verify afterwards that each one is revoked."
    settings = {"help_option_names": ["--help", "-h"]}
    app = command_group(summary, _accept_version, is_root=True, add_completion=True, context_settings=settings)
    own: dict[str | None, Callable[..., None] | typer.Typer] = {
        **{
            function.__name__: function
            for function in (init.init, login.login, login.logout, login.whoami, find, report, sweep, console, demo)
        },
        **{group.__name__.rpartition(".")[2]: group.app for group in COMMAND_GROUPS},
    }
    first = _first_word(arguments)
    for name, added in ({first: own[first]} if first in own else own).items():
        if isinstance(added, typer.Typer):
            app.add_typer(added, name=name)
        else:
            app.command(name)(added)
    if first not in own:
        for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
            _add_entry_point(app, entry)
    return app


KeepRunning = Annotated[
    bool, typer.Option("--open", envvar="DEMO_OPEN", help="Leave the servers running afterwards, and print their addresses and users.")
]


@command
def console() -> None:
    """Run the console. It uses the Temporal, Vault and database in the settings."""
    with gc_tuning.pause():
        from console.server import main as serve  # noqa: PLC0415 - only this command needs all that a server loads

    serve()


@command
def demo(keep_running: KeepRunning = False) -> None:
    """Run the example shop's jobs on real servers. Exit 0 only if every credential is verified as revoked."""
    from console.cli.demo import run_demo  # noqa: PLC0415 - only this command needs it

    try:
        raise typer.Exit(run_demo(program, keep_running=keep_running))
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None


def _print_version(is_requested: bool) -> None:
    if is_requested:
        terminal.write_line(version("justenough"))
        raise typer.Exit(ExitCode.OK)


def _accept_version(
    show_version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    del show_version


def _add_entry_point(app: typer.Typer, entry: EntryPoint) -> None:
    """Add a package's commands, each with the global options that it does not define itself."""
    command_count, group_count = len(app.registered_commands), len(app.registered_groups)
    try:
        entry.load()(app, command_output)
    except ImportError as error:
        # One broken package must not take the other packages' commands away.
        terminal.write_error(f"the commands of {entry.value} could not be loaded: {error}")
        return
    groups = [group.typer_instance for group in app.registered_groups[group_count:] if group.typer_instance]
    for added in [*app.registered_commands[command_count:], *(added for group in groups for added in group.registered_commands)]:
        if added.callback:
            added.callback = with_global_options(added.callback)


def _first_word(arguments: Sequence[str]) -> str | None:
    words = iter(arguments)
    for word in words:
        if word in OPTIONS_WITH_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None
