"""The program `justenough`: its commands, and those that entry points add (docs/decisions/0005)."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points, version
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.commands import catalog_tools, credential, delegation, job, ledger, login, policy, request, review, schedule, webhook
from console.cli.commands.report import report
from console.cli.commands.sweep import sweep
from console.cli.errors import Exit
from console.cli.options import Output, command, current, group, taking_options

GROUP = "justenough.commands"
"""Entry points of this group are functions `register(app)` that add commands."""
VALUED = {"-o", "--output", "--profile", "--console-url"}
"""Options before a command that take the word after them."""


def main() -> None:
    """Run the program with this process's arguments."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # text streams have it, replaced ones may not
    program(sys.argv[1:])(prog_name="justenough")


def program(arguments: Sequence[str]) -> typer.Typer:
    """Return the program, with other packages' commands where these arguments may be about one: they take long to load."""
    app = _ours()
    own = {one.name for one in app.registered_commands} | {one.name for one in app.registered_groups}
    if _first_word(arguments) not in own:
        for entry in sorted(entry_points(group=GROUP), key=lambda found: found.name):
            _add(app, entry)
    return app


def _ours() -> typer.Typer:
    app = group(
        "Just-enough access for AI jobs.", _root, first=True, add_completion=True, context_settings={"help_option_names": ["--help", "-h"]}
    )
    login.register(app)
    app.add_typer(job.app, name="job")
    app.add_typer(request.app, name="request")
    app.add_typer(review.reviews, name="review")
    app.add_typer(delegation.delegations, name="delegation")
    app.add_typer(credential.app, name="credential")
    app.add_typer(schedule.app, name="schedule")
    app.add_typer(ledger.app, name="ledger")
    app.add_typer(webhook.app, name="webhook")
    app.add_typer(catalog_tools.catalog, name="catalog")
    app.add_typer(policy.app, name="policy")
    app.command("report")(report)
    app.command("sweep")(sweep)
    app.command("console")(console)
    app.command("demo")(demo)
    return app


Open = Annotated[
    bool, typer.Option("--open", envvar="DEMO_OPEN", help="Leave the servers running afterwards, and print where they are and their users.")
]


@command
def console() -> None:
    """Run the console's server against the Temporal, Vault and store of the settings."""
    from console.__main__ import main as serve  # noqa: PLC0415 - only this command needs all that a server loads

    serve()


@command
def demo(stays: Open = False) -> None:
    """Run the shop's jobs on real servers, with their approvals, and prove every revocation."""
    from console.cli.demo import run  # noqa: PLC0415 - only this command needs it

    try:
        raise typer.Exit(run(stays=stays))
    except KeyboardInterrupt:
        raise typer.Exit(Exit.INTERRUPTED) from None


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.line(version("justenough"))
        raise typer.Exit(Exit.OK)


Version = Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")]


def _root(context: typer.Context, show_version: Version = False) -> None:
    del show_version
    # Others' commands may have options of these names of their own; what was said before their name is their default.
    said: dict[str, object] = {"quiet": True} if current().quiet else {}
    if current().console_url:
        said["console_url"] = current().console_url
    if current().output is not Output.TABLE:
        said["output"] = current().output.value
    context.default_map = _for_each(context.command, said) if said else None


def _for_each(command: object, said: dict[str, object]) -> dict[str, object]:
    """Return these defaults for a command and for all below it."""
    return said | {name: _for_each(below, said) for name, below in getattr(command, "commands", {}).items()}


def _add(app: typer.Typer, entry: EntryPoint) -> None:
    """Add a package's commands, each with the options that every command takes and that it has not itself."""
    known = len(app.registered_commands), len(app.registered_groups)
    try:
        entry.load()(app)
    except ImportError as error:
        # One broken package must not take the others' commands away.
        terminal.say_error(f"the commands of {entry.value} could not be loaded: {error}")
        return
    groups = [found.typer_instance for found in app.registered_groups[known[1] :] if found.typer_instance]
    for found in [*app.registered_commands[known[0] :], *(one for some in groups for one in some.registered_commands)]:
        if found.callback:
            found.callback = taking_options(found.callback)


def _first_word(arguments: Sequence[str]) -> str | None:
    words = iter(arguments)
    for word in words:
        if word in VALUED:
            next(words, None)
        elif not word.startswith("-"):
            return word
    return None
