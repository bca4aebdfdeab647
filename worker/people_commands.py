"""The commands `justenough people`: read the people, write them into Vault or show what would be written.

Imports nothing that loads slowly, because `justenough --help` loads this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from justenough.domain.core.errors import InvalidInput, Problem
from worker.command_output import EXIT_FAILED, EXIT_USAGE, CommandOutput, exit_on_error, read_settings
from worker.vault_commands import print_applied, print_plan

if TYPE_CHECKING:
    from worker.provisioning import ReadPeople

PeopleArgument = Annotated[Path | None, typer.Argument(metavar="FILE", help="People in YAML or JSON, or SCIM's JSON.")]
ScimOption = Annotated[str | None, typer.Option("--scim", metavar="URL", help="Fetch /Users and /Groups below this address instead.")]
TokenFileOption = Annotated[Path | None, typer.Option("--token-file", metavar="FILE", help="The file with the token for the SCIM server.")]
GroupOption = Annotated[
    list[str] | None, typer.Option("--group", metavar="NAME", help="Only this group and the people in it; may be repeated.")
]
RemoveOption = Annotated[
    bool, typer.Option("--remove", help="Also disable people from an earlier sync who are no longer listed, and remove them from groups.")
]


@dataclass(frozen=True, slots=True)
class PeopleCommands:
    """The commands, which print through `output`."""

    output: CommandOutput

    def register(self, app: typer.Typer) -> None:
        """Add the commands to the program."""
        people = typer.Typer(help="Create people and groups in Vault.", no_args_is_help=True)
        people.command("plan")(self.plan)
        people.command("sync")(self.sync)
        app.add_typer(people, name="people")

    def plan(
        self,
        file: PeopleArgument = None,
        scim: ScimOption = None,
        token_file: TokenFileOption = None,
        group: GroupOption = None,
        remove: RemoveOption = False,
    ) -> None:
        """Show what `people sync` would write into Vault, and write nothing. Exit 2 if anything would change."""
        from worker.provisioning import plan_people  # noqa: PLC0415 - loads what setting up Vault needs
        from worker.stack.seed import vault_to_set_up  # noqa: PLC0415 - the same

        settings = read_settings(self.output, exit_code=EXIT_FAILED)
        with exit_on_error(self.output):
            people = PeopleSource(file, scim, token_file, tuple(group or ())).read()
            vault = vault_to_set_up(settings)
            planned = plan_people(
                vault.settings, people.people, admin_token=vault.admin_token, remove=remove, fixed_groups=people.ambiguous_groups
            )
        self._note_ignored(people)
        print_plan(self.output, planned, command="justenough people sync")

    def sync(
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
        from worker.provisioning import sync_people  # noqa: PLC0415 - loads what setting up Vault needs
        from worker.stack.seed import vault_to_set_up  # noqa: PLC0415 - the same

        settings = read_settings(self.output)
        with exit_on_error(self.output, invalid_input=EXIT_USAGE):
            people = PeopleSource(file, scim, token_file, tuple(group or ())).read()
            vault = vault_to_set_up(settings)
            applied = sync_people(
                vault.settings, people.people, admin_token=vault.admin_token, remove=remove, fixed_groups=people.ambiguous_groups
            )
        self._note_ignored(people)
        print_applied(self.output, applied)

    def _note_ignored(self, people: ReadPeople) -> None:
        if people.ignored_groups:
            self.output.note(f"Left out, because approvals.yaml cannot name them: {', '.join(people.ignored_groups)}.")


@dataclass(frozen=True, slots=True)
class PeopleSource:
    """Where the people come from: a file or a SCIM server."""

    file: Path | None
    scim: str | None
    token_file: Path | None
    groups: tuple[str, ...]

    def read(self) -> ReadPeople:
        """Return the people. Raises InvalidInput, GiveUp, RetryLater."""
        from justenough.domain.core.secret import Secret  # noqa: PLC0415 - loads pydantic
        from worker.provisioning import fetch_scim, read_people, read_scim  # noqa: PLC0415 - loads what setting up Vault needs

        if (self.file is None) == (self.scim is None):
            raise InvalidInput("people", (Problem("", "name either a file or a SCIM server (--scim URL --token-file FILE)"),))
        if (self.scim is None) != (self.token_file is None):
            raise InvalidInput("people", (Problem("", "--scim and --token-file belong together"),))
        if self.scim is not None and self.token_file is not None:
            token = _read_file(self.token_file).decode(errors="replace").strip()
            if not token.isascii() or not token.isprintable() or not token:
                raise InvalidInput(str(self.token_file), (Problem("", "must contain the SCIM server's token, and nothing else"),))
            people = read_scim(self.scim, fetch_scim(self.scim, Secret(token)))
        else:
            assert self.file is not None
            people = read_people(str(self.file), _read_file(self.file))
        return people.only(self.groups) if self.groups else people


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(str(path), (Problem("", f"cannot be read: {error.strerror}"),)) from error
