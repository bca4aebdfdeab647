"""The worker's commands of `justenough`: up, down, status, doctor, worker, vault, store, people; their names and options.

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
PeopleArgument = Annotated[Path | None, typer.Argument(metavar="FILE", help="People in YAML or JSON, or SCIM's JSON.")]
ScimOption = Annotated[str | None, typer.Option("--scim", metavar="URL", help="Fetch /Users and /Groups below this address instead.")]
TokenFileOption = Annotated[Path | None, typer.Option("--token-file", metavar="FILE", help="The file with the token for the SCIM server.")]
GroupOption = Annotated[
    list[str] | None, typer.Option("--group", metavar="NAME", help="Only this group and the people in it; may be repeated.")
]
RemoveOption = Annotated[
    bool, typer.Option("--remove", help="Also disable people from an earlier sync who are no longer listed, and remove them from groups.")
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
    vault.command("try")(commands.vault_try)
    vault.command("setup", help="The same as `vault apply`.")(commands.vault_setup)
    app.add_typer(vault, name="vault")
    people = typer.Typer(help="Create people and groups in Vault.", no_args_is_help=True)
    people.command("plan")(commands.people_plan)
    people.command("sync")(commands.people_sync)
    app.add_typer(people, name="people")
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
        """Show the health of the stack, or of an installation elsewhere. For the stack: pid, address and health of each server. For an installation (--console-url, settings or login): the health of its systems, as its console reports it. Exit 1 if the stack is not running or something is unhealthy."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.status(self.output)

    def doctor(
        self,
        production: Annotated[
            bool,
            typer.Option(
                "--production",
                help="Check your own servers with this process's variables. Issues and revokes one credential for each target.",
            ),
        ] = False,
    ) -> None:
        """Check this machine, its configuration and the servers. Prints how to fix each problem. Exit 1 if something required is missing."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.doctor(self.output, production=production)

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
                help="Also change what everybody in this Vault shares: issuer of identity tokens, maximum token lifetime.",
            ),
        ] = False,
    ) -> None:
        """Write into Vault what the catalog needs. Uses VAULT_ADDR and an administrator's VAULT_TOKEN, or the Vault of the running stack."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.vault_setup(self.output, change_shared=change_shared)

    def vault_export(
        self,
        folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the files.")],
        form: Annotated[
            Literal["hcl", "terraform"],
            typer.Option("--format", help="Policies, objects and a script for bao or vault; or Terraform's JSON."),
        ] = "hcl",
    ) -> None:
        """Write the files to set up Vault yourself, for review. Contacts no Vault."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.vault_export(self.output, folder, form)

    def people_plan(
        self,
        file: PeopleArgument = None,
        scim: ScimOption = None,
        token_file: TokenFileOption = None,
        group: GroupOption = None,
        remove: RemoveOption = False,
    ) -> None:
        """Show what `people sync` would write into Vault, and write nothing. Exit 2 if anything would change."""
        from worker import people_actions  # noqa: PLC0415 - loads the stack

        source = people_actions.Source(file, scim, token_file, tuple(group or ()))
        people_actions.people_plan(self.output, source, remove=remove)

    def people_sync(
        self,
        file: PeopleArgument = None,
        scim: ScimOption = None,
        token_file: TokenFileOption = None,
        group: GroupOption = None,
        remove: RemoveOption = False,
    ) -> None:
        """Create and update people, their logins' names and groups in Vault. Sets no passwords. Changes no identity that it did not create.

        Uses VAULT_ADDR and an administrator's VAULT_TOKEN, or the Vault of the running stack.
        """
        from worker import people_actions  # noqa: PLC0415 - loads the stack

        source = people_actions.Source(file, scim, token_file, tuple(group or ()))
        people_actions.people_sync(self.output, source, remove=remove)

    def vault_try(
        self,
        resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="A resource of the catalog.")],
        action: Annotated[Literal["read", "write", "admin"], typer.Argument(metavar="ACTION", help="read, write or admin.")] = "read",
        data_scope: Annotated[
            list[str] | None, typer.Option("--data-scope", metavar="KEY=VALUE", help="A key of the data scope; may be repeated.")
        ] = None,
    ) -> None:
        """Try an action: issue, log in, revoke, verify. Does what a worker does, with the worker's login in Vault. Exit 1 if a step fails."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.vault_try(self.output, resource, action, tuple(data_scope or ()))

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
        """Check the store as workers and consoles use it. Shows server, TLS, schema, rights, pooler and notices. Exit 1 if something is missing."""
        from worker import command_actions  # noqa: PLC0415 - loads the stack

        command_actions.store_check(self.output)


def worker() -> None:
    """Run one worker. It uses the Temporal, Vault and database in the settings."""
    with gc_tuning.pause():
        from worker.main import main  # noqa: PLC0415 - only this command needs what a worker loads

    main()
