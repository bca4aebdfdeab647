"""The worker's commands of `justenough`: up, down, status, doctor, worker, vault setup. Thin: each asks one function and prints its answer."""

from __future__ import annotations

import json
import os
from enum import StrEnum
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from activities.settings import Settings, load_settings
from justenough.errors import InvalidInput, JustEnoughError
from justenough.secret import Secret
from worker.stack.control import running, start_detached, stop
from worker.stack.doctor import Finding, examine
from worker.stack.places import Places
from worker.stack.reports import Step
from worker.stack.state import Stack
from worker.stack.supervisor import supervise
from worker.stack.survey import Survey, survey

FAILED, USAGE = 1, 2

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


class Output(StrEnum):
    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[Output, typer.Option("--output", "-o", help="table or json")]


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


def up(detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False) -> None:
    """Start Temporal, Vault, PostgreSQL, worker and console here, for evaluation; data stays in JUSTENOUGH_HOME."""
    settings = _settings()
    try:
        if stack := running(Places.of(settings.home)):
            err.print(f"The stack is already running in {stack.home}.")
            _print_addresses(stack)
        elif detach:
            _print_addresses(start_detached(settings, tell=err.print))
        else:
            supervise(settings, report=_tell(settings))
    except JustEnoughError as error:
        _fail(error)


def down() -> None:
    """Stop what `up` started; data stays."""
    places = Places.of(_settings().home)
    try:
        stopped = stop(places)
    except JustEnoughError as error:
        _fail(error)
    err.print(f"Stopped {', '.join(stopped)}." if stopped else f"Nothing is running in {places.home}.")


def status(output: OutputOption = Output.TABLE) -> None:
    """Show each child of the stack: pid, address, health. Exit 1 where one does not answer or nothing runs."""
    try:
        seen = survey(Places.of(_settings().home))
    except JustEnoughError as error:
        _fail(error)
    if output is Output.JSON:
        _print_json(seen.as_json())
    else:
        _print_survey(seen)
    if not seen.well:
        raise typer.Exit(FAILED)


def doctor(output: OutputOption = Output.TABLE) -> None:
    """Say what this machine, home and Vault lack, and the remedy. Exit 1 where something needed is missing."""
    findings = examine(_settings())
    if output is Output.JSON:
        _print_json({"findings": [{"what": f.what, "level": f.level, "found": f.found, "remedy": f.remedy} for f in findings]})
    else:
        _print_findings(findings)
    if any(finding.level == "missing" for finding in findings):
        raise typer.Exit(FAILED)


def worker() -> None:
    """Run one worker against the Temporal and Vault of the settings."""
    from worker.main import main  # noqa: PLC0415 - only this command needs all that a worker loads

    main()


def vault_setup() -> None:
    """Bring the Vault at VAULT_ADDR to what the catalog needs, with the administrator's VAULT_TOKEN; the running stack's without them."""
    from worker.stack.fill import set_vault_up  # noqa: PLC0415 - only this command needs what setting Vault up loads

    settings, token = _settings(), os.environ.get("VAULT_TOKEN")
    try:
        applied = set_vault_up(settings, token=Secret(token) if token else None)
    except InvalidInput as error:
        _fail(error, code=USAGE)
    except JustEnoughError as error:
        _fail(error)
    for step in applied:
        out.print(f"{step.outcome:10} {step.path}  {step.note}".rstrip())


def _settings() -> Settings:
    try:
        return load_settings()
    except ValidationError as error:
        for problem in error.errors():
            err.print(f"setting {'.'.join(map(str, problem['loc']))}: {problem['msg']}")
        raise typer.Exit(USAGE) from error


def _fail(error: JustEnoughError, *, code: int = FAILED) -> NoReturn:
    if isinstance(error, InvalidInput):
        err.print(f"Error: {error.what} is wrong:", *(f"  {problem}" for problem in error.problems), sep="\n", markup=False)
    else:
        err.print(f"Error: {error}", markup=False)
    raise typer.Exit(code) from error


def _tell(settings: Settings) -> Any:
    def tell(step: Step, text: str) -> None:
        if step == "ready" and (stack := running(Places.of(settings.home))):
            _print_addresses(stack)
            err.print("Stop with Ctrl-C.")
        elif step == "step":
            err.print(text)

    return tell


def _print_addresses(stack: Stack) -> None:
    named = {
        "console": stack.console,
        "temporal": stack.temporal,
        "temporal ui": stack.temporal_ui,
        "vault": stack.vault,
        "home": str(stack.home),
    }
    for name, address in named.items():
        if address:
            out.print(f"{name:12} {address}", markup=False)


def _print_json(value: object) -> None:
    typer.echo(json.dumps(value, indent=2))


def _print_survey(seen: Survey) -> None:
    if seen.supervisor is None:
        err.print(f"The stack is not running in {seen.places.home}. Start it: justenough up --detach")
    if seen.children:
        table = Table("NAME", "PID", "HEALTH", "ADDRESS", box=None)
        for child in seen.children:
            table.add_row(child.name, str(child.pid), child.health, child.address)
        out.print(table)


def _print_findings(findings: tuple[Finding, ...]) -> None:
    for finding in findings:
        out.print(f"{finding.level:8} {finding.what}: {finding.found}", markup=False)
        if finding.remedy:
            out.print(f"{'':8} → {finding.remedy}", markup=False)
