"""What the worker's commands do and print. Thin: each asks one function and prints its answer, data on stdout, the rest on stderr."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from justenough.adapters.configuration.settings import Settings, load_settings
from justenough.domain.core.errors import InvalidInput, JustEnoughError
from justenough.domain.core.secret import Secret
from worker.stack.control import find_running_stack, start_detached, stop_stack
from worker.stack.doctor import DoctorFinding, examine
from worker.stack.paths import StackPaths
from worker.stack.stack_file import Stack
from worker.stack.start_progress import Step
from worker.stack.status import StackStatus, check_status
from worker.stack.supervisor import supervise

Form = Literal["table", "json", "yaml", "name"]
Json = dict[str, Any]
EXIT_FAILED, EXIT_USAGE = 1, 2

out = Console(soft_wrap=True, highlight=False)
err = Console(stderr=True, soft_wrap=True, highlight=False)


def up(*, detach: bool, lifeline: int | None, form: Form, quiet: bool) -> None:
    """Start the stack, or say where it runs already."""
    settings = _settings()
    try:
        if stack := find_running_stack(StackPaths.of(settings.home)):
            _note(f"The stack is already running in {stack.home}.", quiet=quiet)
            _print_addresses(stack, form)
        elif detach:
            started = start_detached(settings, lifeline=lifeline, tell=lambda text: _note(text, quiet=quiet))
            _print_addresses(started, form)
        else:
            supervise(settings, report=_progress_reporter(settings, form, quiet=quiet))
    except JustEnoughError as error:
        _fail(error)


def down(*, form: Form, quiet: bool) -> None:
    """Stop the stack and whatever a killed supervisor left."""
    places = StackPaths.of(_settings().home)
    try:
        stopped = stop_stack(places)
    except JustEnoughError as error:
        _fail(error)
    _note(f"Stopped {', '.join(stopped)}." if stopped else f"Nothing is running in {places.home}.", quiet=quiet)
    _emit({"home": str(places.home), "stopped": list(stopped)}, form, table=lambda: None, names=stopped)


def status(*, form: Form) -> None:
    """Show each child; what the console has to complain of goes to stderr."""
    try:
        seen = check_status(StackPaths.of(_settings().home))
    except JustEnoughError as error:
        _fail(error)
    _emit(seen.as_json(), form, table=lambda: _print_survey(seen), names=(child.name for child in seen.children))
    for alarm in seen.alarms:
        err.print(f"Alarm: {alarm}", markup=False)
    if not seen.is_well:
        raise typer.Exit(EXIT_FAILED)


def doctor(*, form: Form, console_url: str | None = None) -> None:
    """Show every finding."""
    findings = examine(_settings(), console_url=console_url)
    found = [{"what": f.what, "level": f.level, "found": f.found, "remedy": f.remedy} for f in findings]
    _emit({"findings": found}, form, table=lambda: _print_findings(findings), names=(f.what for f in findings))
    if any(finding.level == "missing" for finding in findings):
        raise typer.Exit(EXIT_FAILED)


def vault_setup(*, form: Form) -> None:
    """Set Vault up and show each step."""
    from worker.stack.seed import set_up_vault  # noqa: PLC0415 - only this command needs what setting Vault up loads

    settings, token = _settings(), os.environ.get("VAULT_TOKEN")
    try:
        applied = set_up_vault(settings, token=Secret(token) if token else None)
    except InvalidInput as error:
        _fail(error, code=EXIT_USAGE)
    except JustEnoughError as error:
        _fail(error)
    steps = [{"path": step.path, "outcome": str(step.outcome), "note": step.note} for step in applied]
    lines = [f"{step['outcome']:10} {step['path']}  {step['note']}".rstrip() for step in steps]
    names = (step["path"] for step in steps)
    _emit({"items": steps, "next": None}, form, table=lambda: out.print("\n".join(lines), markup=False), names=names)


def _settings() -> Settings:
    try:
        return load_settings()
    except ValidationError as error:
        for problem in error.errors():
            err.print(f"setting {'.'.join(map(str, problem['loc']))}: {problem['msg']}")
        raise typer.Exit(EXIT_USAGE) from error


def _fail(error: JustEnoughError, *, code: int = EXIT_FAILED) -> NoReturn:
    if isinstance(error, InvalidInput):
        err.print(f"Error: {error.what} is wrong:", *(f"  {problem}" for problem in error.problems), sep="\n", markup=False)
    else:
        err.print(f"Error: {error}", markup=False)
    raise typer.Exit(code) from error


def _note(text: str, *, quiet: bool) -> None:
    if not quiet:
        err.print(text, markup=False)


def _progress_reporter(settings: Settings, form: Form, *, quiet: bool) -> Any:
    def tell(step: Step, text: str) -> None:
        if step == "ready" and (stack := find_running_stack(StackPaths.of(settings.home))):
            _print_addresses(stack, form)
            _note("Stop with Ctrl-C.", quiet=quiet)
        elif step == "step":
            _note(text, quiet=quiet)

    return tell


def _emit(value: Json, form: Form, *, table: Callable[[], object], names: Iterable[str]) -> None:
    match form:
        case "json":
            typer.echo(json.dumps(value, indent=2))
        case "yaml":
            import yaml  # noqa: PLC0415 - only this form needs it

            typer.echo(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=1000), nl=False)
        case "name":
            for name in names:
                typer.echo(name)
        case "table":
            table()


def _print_addresses(stack: Stack, form: Form) -> None:
    """Print where everything is. Never stack.json itself: it holds passwords."""
    named = {
        "console": stack.console,
        "temporal": stack.temporal,
        "temporal_ui": stack.temporal_ui,
        "vault": stack.vault,
        "home": str(stack.home),
    }
    lines = [f"{name.replace('_', ' '):12} {address}" for name, address in named.items() if address]
    _emit(dict(named), form, table=lambda: out.print("\n".join(lines), markup=False), names=(str(stack.home),))


def _print_survey(seen: StackStatus) -> None:
    if seen.supervisor is None and any(child.health != "down" for child in seen.children):
        err.print(
            f"Nobody keeps the stack in {seen.places.home}: its supervisor is gone, and what dies now stays dead. "
            "Mend it: justenough up --detach"
        )
    elif seen.supervisor is None:
        err.print(f"The stack is not running in {seen.places.home}. Start it: justenough up --detach")
    if seen.children:
        table = Table("NAME", "PID", "HEALTH", "ADDRESS", box=None, pad_edge=False)
        for child in seen.children:
            table.add_row(child.name, str(child.pid), child.health, child.address)
        out.print(table)


def _print_findings(findings: tuple[DoctorFinding, ...]) -> None:
    for finding in findings:
        out.print(f"{finding.level:8} {finding.what}: {finding.found}", markup=False)
        if finding.remedy:
            out.print(f"{'':8} → {finding.remedy}", markup=False)
