"""`justenough init`: write a new configuration folder."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.client.config import SETTINGS_FILE, load_config
from console.cli.errors import Failure, WrongUsage
from console.cli.options import command
from console.cli.render.output import emit
from justenough.adapters.runtime.new_files import new_files

NAME = re.compile(r"[a-z0-9-]{1,63}")
QUESTIONS = {
    "environment": ("Environment of your resources", "prod"),
    "launchers": ("Group that may launch jobs", "ops"),
    "owners": ("Group that owns resources and approves writes", "owners"),
    "security": ("Group that approves restricted data and admin rights", "security"),
}


@command
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder to create.")] = Path("config"),
    environment: Annotated[str | None, typer.Option("--environment", metavar="NAME", help=f"{QUESTIONS['environment'][0]}.")] = None,
    launchers: Annotated[str | None, typer.Option("--launchers", metavar="GROUP", help=f"{QUESTIONS['launchers'][0]}.")] = None,
    owners: Annotated[str | None, typer.Option("--owners", metavar="GROUP", help=f"{QUESTIONS['owners'][0]}.")] = None,
    security: Annotated[str | None, typer.Option("--security", metavar="GROUP", help=f"{QUESTIONS['security'][0]}.")] = None,
) -> None:
    """Write a configuration folder. It has approvals, policies, and a catalog for `justenough catalog add`. Asks for values that no option
    gives.
    """
    from justenough.adapters.configuration.scaffold.new_folder import render_folder  # noqa: PLC0415 - loads jinja2

    given = {"environment": environment, "launchers": launchers, "owners": owners, "security": security}
    answers = {name: QUESTIONS[name][1] if value is None else value for name, value in given.items()}
    if terminal.is_interactive():
        answers |= {name: str(typer.prompt(QUESTIONS[name][0], default=answers[name], err=True)) for name in given if given[name] is None}
    for name, value in answers.items():
        if not NAME.fullmatch(value):
            raise WrongUsage(f"--{name}: {value!r} must be lower-case letters, digits and -, at most 63")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise WrongUsage(f"{folder} already exists and is not empty", hint="Name a new folder.")
        # Leave no files behind after a failure: the next run would refuse a folder that is not empty.
        with new_files((folder / name, text) for name, text in render_folder({"folder": str(folder), **answers})):
            pass
        if names_folder := not SETTINGS_FILE.exists():
            # A JSON text is one of TOML, too.
            SETTINGS_FILE.write_text(f"config = {json.dumps(str(folder), ensure_ascii=False)}\n", encoding="utf-8")
    except OSError as error:
        raise Failure(f"cannot write {error.filename or folder}: {error.strerror}") from error
    load_config(folder)
    steps = (
        *(() if names_folder else (f"export JUSTENOUGH_CONFIG={shlex.quote(str(folder))}",)),
        f"justenough catalog add postgres NAME --url postgresql://HOST/DATABASE{'' if names_folder else f' --config {shlex.quote(str(folder))}'}",
        "justenough vault plan",
    )
    emit(
        {"folder": str(folder), "settings": str(SETTINGS_FILE) if names_folder else None, "next": list(steps)},
        table=lambda shown: terminal.write_line("\n  ".join((f"Created {shown['folder']}. Next:", *shown["next"]))),
        name="folder",
    )
