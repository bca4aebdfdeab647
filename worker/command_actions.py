"""The actions of the worker's commands. Each calls one function and prints its result: data on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from justenough.adapters.configuration.settings import Settings, load_settings
from justenough.domain.core.errors import InvalidInput, JustEnoughError
from worker.stack.control import find_running_stack, start_detached, stop_stack
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack
from worker.stack.start_progress import Step
from worker.stack.status import StackStatus, check_status
from worker.stack.supervisor import supervise

if TYPE_CHECKING:
    from worker.command_output import CommandOutput, Json
    from worker.provisioning import AppliedWrite, PlannedWrite
    from worker.stack.finding import DoctorFinding

EXIT_FAILED, EXIT_USAGE, EXIT_DRIFT = 1, 2, 2
LABELS = {"ok": "OK", "warning": "WARN", "missing": "FAIL"}
"""How doctor prints the levels of its findings."""


def up(output: CommandOutput, *, detach: bool, lifeline: int | None) -> None:
    """Start the stack, or print the addresses of the running one."""
    settings = read_settings(output)

    def report_step(step: Step, text: str) -> None:
        if step == "ready" and (stack := find_running_stack(StackPaths.of(settings.home))):
            _print_addresses(output, stack)
            output.note("Stop with Ctrl-C.")
        elif step == "step":
            output.note(text)

    with exit_on_error(output):
        if stack := find_running_stack(StackPaths.of(settings.home)):
            output.note(f"The stack is already running in {stack.home}.")
            _print_addresses(output, stack)
        elif detach:
            _print_addresses(output, start_detached(settings, lifeline=lifeline, on_step=output.note))
        else:
            supervise(settings, report=report_step)


def down(output: CommandOutput) -> None:
    """Stop the stack, and the servers that a killed supervisor left running."""
    paths = StackPaths.of(read_settings(output).home)
    with exit_on_error(output):
        stopped = stop_stack(paths)
    output.note(f"Stopped {', '.join(stopped)}." if stopped else f"Nothing is running in {paths.home}.")
    output.emit({"home": str(paths.home), "stopped": list(stopped)}, table=lambda _: None, names=lambda _: stopped)


def status(output: CommandOutput) -> None:
    """Print the health of each server, and the console's alarms on stderr; for an installation elsewhere, print what its console reports."""
    with exit_on_error(output):
        address = output.installation_url()
    if address is not None:
        from worker.stack.doctor.servers import console_findings  # noqa: PLC0415 - loads what checks servers

        _print_findings(output, tuple(console_findings(address)))
        return
    with exit_on_error(output):
        stack_status = check_status(StackPaths.of(read_settings(output).home))
    output.emit(
        stack_status.as_json(),
        table=lambda _: _print_status(output, stack_status),
        names=lambda _: (child.name for child in stack_status.children),
    )
    for alarm in stack_status.alarms:
        output.write_message(f"Alarm: {alarm}")
    if not stack_status.is_well:
        raise typer.Exit(EXIT_FAILED)


def doctor(output: CommandOutput, *, production: bool) -> None:
    """Print every finding about this machine, or about an installation on separate servers."""
    from worker.stack.doctor import examine  # noqa: PLC0415 - only this command needs the store and every adapter
    from worker.stack.doctor.production import production_findings  # noqa: PLC0415 - the same

    if production:
        _print_findings(output, production_findings(read_settings(output), console_url=output.console_url()))
        return

    _print_findings(output, examine(read_settings(output), console_url=output.console_url()))


def store_check(output: CommandOutput) -> None:
    """Print every finding about the store."""
    from worker.stack.doctor.store import store_findings  # noqa: PLC0415 - only this command needs the store

    _print_findings(output, tuple(store_findings(read_settings(output))))


def store_migrate(output: CommandOutput, *, grant: str | None) -> None:
    """Migrate the store and print its revisions."""
    from worker.stack.doctor.store import open_own_store  # noqa: PLC0415 - only this command needs the store

    settings = read_settings(output)
    with exit_on_error(output), open_own_store(settings) as store:
        revisions = store.migrate(grant=grant)
    if revisions.found == revisions.newest:
        text = f"The store is at revision {revisions.newest} already."
    else:
        text = f"Migrated the store from {revisions.found or 'nothing'} to revision {revisions.newest}."
    granted = f" The role {grant} has the rights that workers and consoles need." if grant else ""
    output.emit(
        {"before": revisions.found, "revision": revisions.newest, "granted": grant},
        table=lambda _: output.write_line(text + granted),
        names=lambda _: (revisions.newest,),
    )


def _print_findings(output: CommandOutput, findings: Sequence[DoctorFinding]) -> None:
    """Print findings with their remedies; exit 1 if something is missing."""

    def print_findings(_: Json) -> None:
        for finding in findings:
            output.write_line(f"{LABELS[finding.level]:4} {finding.what}: {finding.found}")
            if finding.remedy:
                output.write_line(f"{'':4} → {finding.remedy}")

    output.emit(
        {"findings": [asdict(finding) for finding in findings]},
        table=print_findings,
        names=lambda _: (finding.what for finding in findings),
    )
    if any(finding.level == "missing" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def vault_setup(output: CommandOutput, *, change_shared: bool) -> None:
    """Set up Vault and print each step."""
    from worker.provisioning import provision_vault  # noqa: PLC0415 - only this command needs what setting up Vault loads
    from worker.stack.seed import vault_to_set_up  # noqa: PLC0415 - the same

    settings = read_settings(output)
    with exit_on_error(output, invalid_input=EXIT_USAGE):
        target = vault_to_set_up(settings)
        # Nobody shares an embedded Vault.
        applied = provision_vault(target, change_shared=change_shared or target.people is not None)
    print_applied(output, applied)


def vault_plan(output: CommandOutput) -> None:
    """Print what setting up Vault would change; exit 2 if anything would."""
    from worker.provisioning import plan_vault  # noqa: PLC0415 - only this command needs what setting up Vault loads
    from worker.stack.seed import vault_to_set_up  # noqa: PLC0415 - the same

    settings = read_settings(output, exit_code=EXIT_FAILED)
    with exit_on_error(output):
        planned = plan_vault(vault_to_set_up(settings))
    print_plan(output, planned, command="justenough vault apply")


def vault_try(output: CommandOutput, resource: str, action: str, pairs: tuple[str, ...]) -> None:
    """Print the result of each step of a trial; exit 1 if one failed."""
    from justenough.domain.jobs.states import Action  # noqa: PLC0415 - only this command needs them
    from justenough.services.action_trial import try_action  # noqa: PLC0415
    from worker.stack.seed import embedded_inputs  # noqa: PLC0415

    if wrong := next((pair for pair in pairs if not pair.partition("=")[2]), None):
        output.write_message(f"--data-scope {wrong}: write KEY=VALUE, as in tenant=acme")
        raise typer.Exit(EXIT_USAGE)
    given = read_settings(output)
    settings, environment = embedded_inputs(given) or (given, os.environ)
    data_scope = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
    with exit_on_error(output, invalid_input=EXIT_USAGE):
        steps = [step._asdict() for step in try_action(settings, environment, resource, Action(action), data_scope)]
    output.emit(
        {"action": f"{resource}:{action}", "steps": steps},
        table=lambda _: output.print_table(("STEP", "RESULT", "FOUND"), [(step["step"], step["outcome"], step["found"]) for step in steps]),
        names=lambda _: (step["step"] for step in steps),
    )
    if any(step["outcome"] == "failed" for step in steps):
        raise typer.Exit(EXIT_FAILED)


def vault_export(output: CommandOutput, folder: Path, form: str) -> None:
    """Write the files for a team that sets up Vault itself. Their folder must not exist yet, or be empty."""
    from worker.provisioning import ExportFormat, export_vault  # noqa: PLC0415 - only this command needs what setting up Vault loads

    settings = read_settings(output)
    with exit_on_error(output, invalid_input=EXIT_USAGE):
        files = export_vault(settings, ExportFormat(form))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            output.write_message(f"{folder} is not empty; name a new folder")
            raise typer.Exit(EXIT_USAGE)
        for name, text in files.items():
            file = folder / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(text, encoding="utf-8")
            file.chmod(0o755 if name.endswith(".sh") else 0o644)
    except OSError as error:
        output.write_message(f"{folder} cannot be written: {error.strerror}")
        raise typer.Exit(EXIT_FAILED) from error
    names = [str(folder / name) for name in files]
    output.emit({"files": names}, table=lambda _: output.write_line(f"Wrote {len(names)} files to {folder}"), names=lambda _: names)


def print_applied(output: CommandOutput, applied: Sequence[AppliedWrite]) -> None:
    """Print the outcome for each path in Vault."""
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


def read_settings(output: CommandOutput, *, exit_code: int = EXIT_USAGE) -> Settings:
    """Return the settings; print each problem and exit if there are any."""
    try:
        return load_settings()
    except InvalidInput as error:
        for problem in error.problems:
            output.write_message(str(problem))
        raise typer.Exit(exit_code) from error


@contextlib.contextmanager
def exit_on_error(output: CommandOutput, *, invalid_input: int = EXIT_FAILED) -> Iterator[None]:
    """Print the block's error and exit: with the code `invalid_input` for an InvalidInput, else with 1."""
    try:
        yield
    except JustEnoughError as error:
        output.print_error(error)
        raise typer.Exit(invalid_input if isinstance(error, InvalidInput) else EXIT_FAILED) from error


def _print_addresses(output: CommandOutput, stack: Stack) -> None:
    """Print the address of each server. Never print all of stack.json: it contains passwords."""
    addresses: Json = {
        "console": stack.console,
        "temporal": stack.temporal,
        "temporal_ui": stack.temporal_ui,
        "vault": stack.vault,
        "home": str(stack.home),
    }
    output.emit(
        addresses,
        table=lambda _: output.print_fields((name.replace("_", " ").capitalize(), address) for name, address in addresses.items()),
        names=lambda _: (str(stack.home),),
    )


def _print_status(output: CommandOutput, stack_status: StackStatus) -> None:
    home = stack_status.places.home
    if stack_status.supervisor is None and any(child.health != "down" for child in stack_status.children):
        output.write_message(
            f"The stack in {home} no longer has a supervisor: servers that stop are not restarted. Repair it: justenough up --detach"
        )
    elif stack_status.supervisor is None:
        output.write_message(f"The stack is not running in {home}. Start it: justenough up --detach")
    if stack_status.children:
        output.print_table(
            ("NAME", "PID", "HEALTH", "ADDRESS"),
            [(child.name, child.pid, child.health, child.address) for child in stack_status.children],
        )
