"""The worker's commands of `justenough`: up, down, status, doctor, worker, vault setup; their names and options.

Imports nothing that takes long: every `justenough --help` loads this. What a command does is in worker.command_actions.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class WorkerOutputFormat(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


OutputOption = Annotated[WorkerOutputFormat, typer.Option("--output", "-o", help="How to print: table, json, yaml or name.")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="Print no progress and no hints.")]

LifelineOption = Annotated[
    int | None,
    typer.Option("--lifeline", metavar="FD", hidden=True, help="With --detach: stop when the other end of this inherited pipe is closed."),
]
ConsoleOption = Annotated[
    str | None, typer.Option("--console-url", metavar="URL", help="Ask this installation's console too.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command()(up)
    app.command()(down)
    app.command()(status)
    app.command()(doctor)
    app.command("worker")(worker)
    vault = typer.Typer(help="What Vault must contain.", no_args_is_help=True)
    vault.command("setup")(vault_setup)
    app.add_typer(vault, name="vault")


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False,
    lifeline: LifelineOption = None,
    output: OutputOption = WorkerOutputFormat.TABLE,
    quiet: QuietOption = False,
) -> None:
    """Start Temporal, Vault, PostgreSQL, worker and console here, for evaluation; data stays in JUSTENOUGH_HOME."""
    from worker import command_actions  # noqa: PLC0415 - loads the servers' keepers

    command_actions.up(detach=detach, lifeline=lifeline, form=output.value, quiet=quiet)


def down(output: OutputOption = WorkerOutputFormat.TABLE, quiet: QuietOption = False) -> None:
    """Stop what `up` started; data stays."""
    from worker import command_actions  # noqa: PLC0415 - loads the servers' keepers

    command_actions.down(form=output.value, quiet=quiet)


def status(output: OutputOption = WorkerOutputFormat.TABLE) -> None:
    """Show each child of the stack: pid, address, health. Exit 1 where one does not answer or nothing runs."""
    from worker import command_actions  # noqa: PLC0415 - loads the servers' keepers

    command_actions.status(form=output.value)


def doctor(output: OutputOption = WorkerOutputFormat.TABLE, console_url: ConsoleOption = None) -> None:
    """Say what this machine, home, configuration and servers lack, what is overdue, and the remedy. Exit 1 where something needed is missing."""
    from worker import command_actions  # noqa: PLC0415 - loads the servers' keepers

    command_actions.doctor(form=output.value, console_url=console_url)


def worker() -> None:
    """Run one worker against the Temporal and Vault of the settings."""
    from worker.main import main  # noqa: PLC0415 - only this command needs all that a worker loads

    main()


def vault_setup(output: OutputOption = WorkerOutputFormat.TABLE) -> None:
    """Bring the Vault at VAULT_ADDR to what the catalog needs, with the administrator's VAULT_TOKEN; the running stack's without them."""
    from worker import command_actions  # noqa: PLC0415 - loads the servers' keepers

    command_actions.vault_setup(form=output.value)
