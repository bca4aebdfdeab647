"""The commands `justenough vault` and `justenough people`: plan and apply the setup of Vault, export it as files, try an action; read the people,
write them into Vault or show what would be written.

Imports nothing that loads slowly, because `justenough --help` loads this module.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from justenough.domain.core.errors import GiveUp, InvalidInput, Problem
from worker.command_output import EXIT_DRIFT, EXIT_FAILED, EXIT_USAGE, CommandOutput, Json, exit_on_error, read_settings

if TYPE_CHECKING:
    from justenough.adapters.configuration.settings import Settings
    from worker.provisioning.admin_client import AppliedWrite
    from worker.provisioning.people_source import ReadPeople
    from worker.provisioning.plan import PlannedWrite

MAX_FILE_BYTES = 256 * 1024**2
"""Larger than SCIM's JSON of 100,000 people. A device, or the wrong file, could fill the memory."""
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
class ProvisioningCommands:
    output: CommandOutput

    def register(self, app: typer.Typer) -> None:
        vault = typer.Typer(help="Set up Vault.", no_args_is_help=True)
        vault.command("plan")(self.plan)
        vault.command("apply")(self.set_up)
        vault.command("export")(self.export)
        vault.command("try")(self.try_action)
        vault.command("setup", help="The same as `vault apply`.")(self.set_up)
        app.add_typer(vault, name="vault")
        people = typer.Typer(help="Create people and groups in Vault.", no_args_is_help=True)
        people.command("plan")(self.plan_people)
        people.command("sync")(self.sync_people)
        app.add_typer(people, name="people")

    def plan(self) -> None:
        """Show what `vault apply` would write into Vault, and write nothing. Exit 2 if anything would change."""
        from worker.provisioning.setup import plan_vault  # noqa: PLC0415 - only this command needs what setting up Vault loads
        from worker.stack.seed import vault_to_set_up  # noqa: PLC0415 - the same

        settings = self._read_settings(exit_code=EXIT_FAILED)
        with exit_on_error(self.output):
            planned = plan_vault(vault_to_set_up(settings))
        print_plan(self.output, planned, command="justenough vault apply")

    def set_up(
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
        from worker.provisioning.setup import provision_vault  # noqa: PLC0415 - only this command needs what setting up Vault loads
        from worker.stack.seed import vault_to_set_up  # noqa: PLC0415 - the same

        settings = self._read_settings()
        with exit_on_error(self.output, invalid_input=EXIT_USAGE):
            target = vault_to_set_up(settings)
            # Nobody shares an embedded Vault.
            applied = provision_vault(target, change_shared=change_shared or target.people is not None)
        print_applied(self.output, applied)

    def export(
        self,
        folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new folder for the files.")],
        form: Annotated[
            Literal["hcl", "terraform"],
            typer.Option("--format", help="Policies, objects and a script for bao or vault; or Terraform's JSON."),
        ] = "hcl",
    ) -> None:
        """Write the files to set up Vault yourself, for review. Contacts no Vault."""
        from justenough.adapters.runtime.new_files import new_files  # noqa: PLC0415 - only this command writes files
        from worker.provisioning.setup import export_vault  # noqa: PLC0415 - only this command needs what setting up Vault loads

        output, settings = self.output, self._read_settings()
        with exit_on_error(output, invalid_input=EXIT_USAGE):
            files = export_vault(settings, form)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                output.print_error(GiveUp(f"{folder} is not empty; name a new folder"))
                raise typer.Exit(EXIT_USAGE)
            with new_files((folder / name, text) for name, text in files.items()):
                for name in files:
                    (folder / name).chmod(0o755 if name.endswith(".sh") else 0o644)
        except OSError as error:
            output.print_error(GiveUp(f"{folder} cannot be written: {error.strerror}"))
            raise typer.Exit(EXIT_FAILED) from error
        names = [str(folder / name) for name in files]
        output.emit({"files": names}, table=lambda _: output.write_line(f"Wrote {len(names)} files to {folder}"), names=lambda _: names)

    def try_action(
        self,
        resource: Annotated[str, typer.Argument(metavar="RESOURCE", help="A resource of the catalog.")],
        action: Annotated[Literal["read", "write", "admin"], typer.Argument(metavar="ACTION", help="read, write or admin.")] = "read",
        data_scope: Annotated[
            list[str] | None, typer.Option("--data-scope", metavar="KEY=VALUE", help="A key of the data scope; may be repeated.")
        ] = None,
    ) -> None:
        """Try an action: issue, log in, revoke, verify. Does what a worker does, with the worker's login in Vault. Exit 1 if a step fails."""
        from justenough.domain.jobs.states import Action  # noqa: PLC0415 - only this command needs them
        from justenough.services.action_trial import try_action  # noqa: PLC0415
        from worker.stack.seed import embedded_inputs  # noqa: PLC0415

        output, pairs = self.output, data_scope or ()
        if wrong := next((pair for pair in pairs if not pair.partition("=")[2]), None):
            output.print_error(GiveUp(f"--data-scope {wrong}: write KEY=VALUE"))
            raise typer.Exit(EXIT_USAGE)
        given = self._read_settings()
        settings, environment = embedded_inputs(given) or (given, os.environ)
        scope = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
        with exit_on_error(output, invalid_input=EXIT_USAGE):
            steps = [step._asdict() for step in try_action(settings, environment, resource, Action(action), scope)]
        rows = [(step["step"], step["outcome"], step["found"]) for step in steps]
        output.emit(
            {"action": f"{resource}:{action}", "steps": steps},
            table=lambda _: output.print_table(("STEP", "RESULT", "FOUND"), rows),
            names=lambda _: (step["step"] for step in steps),
        )
        if any(step["outcome"] == "failed" for step in steps):
            raise typer.Exit(EXIT_FAILED)

    def plan_people(
        self,
        file: PeopleArgument = None,
        scim: ScimOption = None,
        token_file: TokenFileOption = None,
        group: GroupOption = None,
        remove: RemoveOption = False,
    ) -> None:
        """Show what `people sync` would write into Vault, and write nothing. Exit 2 if anything would change."""
        from worker.provisioning.people_sync import plan_people  # noqa: PLC0415 - loads what setting up Vault needs
        from worker.stack.seed import vault_to_set_up  # noqa: PLC0415 - the same

        settings = self._read_settings(exit_code=EXIT_FAILED)
        with exit_on_error(self.output):
            people, vault = read_people_source(file, scim, token_file, group or ()), vault_to_set_up(settings)
            planned = plan_people(vault.settings, people, admin_token=vault.admin_token, remove=remove)
        self._note_ignored(people)
        print_plan(self.output, planned, command="justenough people sync")

    def sync_people(
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
        from worker.provisioning.people_sync import sync_people  # noqa: PLC0415 - loads what setting up Vault needs
        from worker.stack.seed import vault_to_set_up  # noqa: PLC0415 - the same

        settings = self._read_settings()
        with exit_on_error(self.output, invalid_input=EXIT_USAGE):
            people, vault = read_people_source(file, scim, token_file, group or ()), vault_to_set_up(settings)
            applied = sync_people(vault.settings, people, admin_token=vault.admin_token, remove=remove)
        self._note_ignored(people)
        print_applied(self.output, applied)

    def _read_settings(self, *, exit_code: int = EXIT_USAGE) -> Settings:
        """Return the settings. If no configuration folder is set, it is the example shop's, and stderr says so."""
        from justenough.adapters.configuration.example_shop import fallback_notice  # noqa: PLC0415 - its package loads pydantic

        settings = read_settings(self.output, exit_code=exit_code)
        if "config" not in settings.model_fields_set:
            self.output.note(fallback_notice())
        return settings

    def _note_ignored(self, people: ReadPeople) -> None:
        if people.ignored_groups:
            self.output.note(f"Left out, because approvals.yaml cannot name them: {', '.join(people.ignored_groups)}.")


def read_people_source(file: Path | None, scim: str | None, token_file: Path | None, groups: Sequence[str]) -> ReadPeople:
    """Return the people of a file or a SCIM server, or only those in some groups. Raises InvalidInput, GiveUp, RetryLater."""
    from justenough.domain.core.secret import Secret  # noqa: PLC0415 - loads pydantic
    from worker.provisioning.people_source import fetch_scim, read_people, read_scim  # noqa: PLC0415 - loads what setting up Vault needs

    if (file is None) == (scim is None):
        raise InvalidInput("people", (Problem("", "name either a file or a SCIM server (--scim URL --token-file FILE)"),))
    if (scim is None) != (token_file is None):
        raise InvalidInput("people", (Problem("", "--scim and --token-file belong together"),))
    if scim is not None and token_file is not None:
        token = _read_file(token_file).decode(errors="replace").strip()
        if not token.isascii() or not token.isprintable() or not token:
            raise InvalidInput(str(token_file), (Problem("", "must contain the SCIM server's token, and nothing else"),))
        people = read_scim(scim, fetch_scim(scim, Secret(token)), groups)
    else:
        assert file is not None
        people = read_people(str(file), _read_file(file), groups)
    return people.only(tuple(groups)) if groups else people


def _read_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInput(str(path), (Problem("", f"cannot be read: {error.strerror}"),)) from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidInput(str(path), (Problem("", f"is larger than {MAX_FILE_BYTES:,} bytes"),))
    return content


def print_applied(output: CommandOutput, applied: Sequence[AppliedWrite]) -> None:
    steps = [{"path": step.path, "outcome": str(step.outcome), "note": step.note} for step in applied]
    output.emit(
        {"items": steps, "next": None},
        table=lambda _: output.print_table(("OUTCOME", "PATH", "NOTE"), [(step["outcome"], step["path"], step["note"]) for step in steps]),
        names=lambda _: (step["path"] for step in steps),
    )


def print_plan(output: CommandOutput, planned: Sequence[PlannedWrite], *, command: str) -> None:
    """Print what a command would change in Vault; exit 2 if anything would change."""
    changes = [step for step in planned if step.outcome in {"created", "changed"}]

    def print_lines(_: Json) -> None:
        for step in planned:
            if step.outcome != "unchanged" or step.note:
                output.write_line(f"{step.outcome:9} {step.path}" + (f"  ({step.note})" if step.note else ""))
                for line in step.lines:
                    output.write_line(f"    {line}")
        if changes:
            output.write_line(f"`{command}` would write {len(changes)} of {len(planned)} objects.")
        else:
            output.write_line(f"Nothing that Vault shows would change: {len(planned)} objects were compared.")

    items = [{"path": step.path, "outcome": str(step.outcome), "note": step.note, "lines": list(step.lines)} for step in planned]
    output.emit({"items": items, "next": None}, table=print_lines, names=lambda _: (step.path for step in changes))
    if changes:
        raise typer.Exit(EXIT_DRIFT)
