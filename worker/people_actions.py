"""The actions of `justenough people`: read the people, write them into Vault or show what would be written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from justenough.domain.core.errors import InvalidInput, Problem
from justenough.domain.core.secret import Secret
from worker.command_actions import EXIT_FAILED, EXIT_USAGE, exit_on_error, print_applied, print_plan, read_settings
from worker.provisioning import ReadPeople, fetch_scim, plan_people, read_people, read_scim, sync_people
from worker.stack.seed import vault_to_set_up

if TYPE_CHECKING:
    from worker.command_output import CommandOutput


@dataclass(frozen=True, slots=True)
class Source:
    """Where the people come from: a file or a SCIM server."""

    file: Path | None
    scim: str | None
    token_file: Path | None
    groups: tuple[str, ...]

    def read(self) -> ReadPeople:
        """Return the people. Raises InvalidInput, GiveUp, RetryLater."""
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


def people_plan(output: CommandOutput, source: Source, *, remove: bool) -> None:
    """Print what a sync would change; exit 2 if anything would change."""
    settings = read_settings(output, exit_code=EXIT_FAILED)
    with exit_on_error(output):
        people = source.read()
        vault = vault_to_set_up(settings)
        planned = plan_people(vault.settings, people.people, admin_token=vault.admin_token, remove=remove)
    _note_ignored(output, people)
    print_plan(output, planned, command="justenough people sync")


def people_sync(output: CommandOutput, source: Source, *, remove: bool) -> None:
    """Write the people into Vault and print each step."""
    settings = read_settings(output)
    with exit_on_error(output, invalid_input=EXIT_USAGE):
        people = source.read()
        vault = vault_to_set_up(settings)
        applied = sync_people(vault.settings, people.people, admin_token=vault.admin_token, remove=remove)
    _note_ignored(output, people)
    print_applied(output, applied)


def _note_ignored(output: CommandOutput, people: ReadPeople) -> None:
    if people.ignored_groups:
        output.note(f"Left out, because approvals.yaml cannot name them: {', '.join(people.ignored_groups)}.")


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(str(path), (Problem("", f"cannot be read: {error.strerror}"),)) from error
