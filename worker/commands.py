"""The worker's commands of `justenough`: up, down, status, doctor, worker, vault …, store …; their names and options.

Imports nothing that loads slowly, because `justenough --help` loads this module. The commands' actions are in worker.command_actions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from justenough.adapters.runtime import gc_tuning
from worker.command_output import CommandOutput

LifelineOption = Annotated[
    int | None,
    typer.Option("--lifeline", metavar="FD", hidden=True, help="With --detach: stop when the other end of this inherited pipe is closed."),
]


def register(app: typer.Typer, output: CommandOutput) -> None:
    """Add the commands to the program; they print through `output`."""
    commands = WorkerCommands(output)
    for command in (commands.up, commands.down, commands.status, commands.doctor, worker):
        app.command(command.__name__)(command)
    vault = typer.Typer(help="Set up Vault.", no_args_is_help=True)
    vault.command("plan")(commands.vault_plan)
    vault.command("apply")(commands.vault_setup)
    vault.command("export")(commands.vault_export)
    vault.command("setup", help="The same as `vault apply`.")(commands.vault_setup)
    app.add_typer(vault, name="vault")
    store = typer.Typer(help="Prepare and check the store's database.", no_args_is_help=True)
    store.command("migrate")(commands.store_migrate)
    store.command("check")(commands.store_check)
    app.add_typer(store, name="store")


@dataclass(frozen=True, slots=True)
class WorkerCommands:
    """The commands that print."""

    output: CommandOutput

    def up(
        self,
        detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once all servers are ready.")] = False,
        lifeline: LifelineOption = None,
    ) -> None:
        """Start Temporal, Vault, PostgreSQL, a worker and a console. They run on this machine, for evaluation. The data stays in JUSTENOUGH_HOME."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.up(self.output, detach=detach, lifeline=lifeline)

    def down(self) -> None:
        """Stop what `up` started. The data stays."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.down(self.output)

    def status(self) -> None:
        """Show the pid, address and health of each server of the stack. Exit 1 if the stack is not running or a server is unhealthy."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.status(self.output)

    def doctor(self) -> None:
        """Check this machine, its configuration and the servers. Prints how to fix each problem. Exit 1 if something required is missing."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.doctor(self.output)

    def vault_plan(self) -> None:
        """Show what `vault apply` would write into Vault, and write nothing. Exit 2 if anything would change."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.vault_plan(self.output)

    def vault_setup(
        self,
        change_shared: Annotated[
            bool,
            typer.Option(
                "--change-shared",
                help="Also change what everybody in this Vault shares: issuer of identity tokens, longest life of tokens.",
            ),
        ] = False,
    ) -> None:
        """Write into Vault what the catalog needs. Uses VAULT_ADDR and an administrator's VAULT_TOKEN, or the Vault of the running stack."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.vault_setup(self.output, change_shared=change_shared)

    def vault_export(
        self,
        folder: Annotated[Path, typer.Argument(help="A new folder for the files.")],
        form: Annotated[
            Literal["hcl", "terraform"],
            typer.Option("--format", help="Policies, objects and a script for bao or vault; or Terraform's JSON."),
        ] = "hcl",
    ) -> None:
        """Write files to review, and to set a Vault up with by yourself. Asks no Vault."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.vault_export(self.output, folder, form)

    def store_migrate(
        self,
        grant: Annotated[
            str | None,
            typer.Option(
                "--grant", metavar="ROLE", help="Also give this role of PostgreSQL exactly the rights that workers and consoles need."
            ),
        ] = None,
    ) -> None:
        """Bring the store to this version's schema. Uses JUSTENOUGH_DATABASE_URL, with a role that owns the tables or may create them."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.store_migrate(self.output, grant=grant)

    def store_check(self) -> None:
        """Check the store with the login of workers and consoles: server, TLS, schema, rights, pooler, notices. Exit 1 if something is missing."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.store_check(self.output)


def worker() -> None:
    """Run one worker. It uses the Temporal, Vault and database in the settings."""
    with gc_tuning.pause():
        from worker.main import main  # noqa: PLC0415 - only this command needs what a worker loads

    main()
