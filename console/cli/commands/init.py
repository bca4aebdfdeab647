"""`justenough init`: write a new configuration folder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from console.cli import terminal
from console.cli.client.config import SETTINGS_FILE, load_config
from console.cli.errors import ExitCode, Failure
from console.cli.options import command
from console.cli.render.output import emit

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
    environment: Annotated[str | None, typer.Option("--environment", metavar="NAME", help="Environment of your resources.")] = None,
    launchers: Annotated[str | None, typer.Option("--launchers", metavar="GROUP", help="Group that may launch jobs.")] = None,
    owners: Annotated[str | None, typer.Option("--owners", metavar="GROUP", help="Group that owns resources and approves writes.")] = None,
    security: Annotated[
        str | None, typer.Option("--security", metavar="GROUP", help="Group that approves restricted data and admin rights.")
    ] = None,
) -> None:
    """Write a configuration folder: approvals, policies and a catalog to which `justenough catalog add` adds. Asks for what no option says."""
    from justenough.adapters.configuration.scaffold.new_folder import NewFolder, render_folder  # noqa: PLC0415 - loads jinja2

    given = {"environment": environment, "launchers": launchers, "owners": owners, "security": security}
    answers = {name: value if value is not None else _ask(*QUESTIONS[name]) for name, value in given.items()}
    for name, value in answers.items():
        if not NAME.fullmatch(value):
            raise Failure(f"--{name}: {value!r} must be lower-case letters, digits and -, at most 63", code=ExitCode.USAGE)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise Failure(f"{folder} is there already and not empty", code=ExitCode.USAGE, hint="Name a new folder.")
        for name, text in render_folder(NewFolder(str(folder), **answers)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        named_here = _name_folder(folder)
    except OSError as error:
        raise Failure(f"cannot write {error.filename}: {error.strerror}") from error
    load_config(folder)
    steps = (
        *(() if named_here else (f"export JUSTENOUGH_CONFIG={folder}",)),
        f"justenough catalog add postgres NAME --url postgresql://HOST/DATABASE{'' if named_here else f' --config {folder}'}",
        "justenough vault plan",
    )
    emit(
        {"folder": str(folder), "settings": str(SETTINGS_FILE) if named_here else None, "next": list(steps)},
        table=lambda shown: terminal.write_line("\n  ".join((f"Created {shown['folder']}. Next:", *shown["next"]))),
        names=lambda _: (str(folder),),
    )


def _ask(question: str, default: str) -> str:
    """Return a person's answer; the default if nobody is there to ask."""
    return str(typer.prompt(question, default=default, err=True)) if terminal.is_interactive() else default


def _name_folder(folder: Path) -> bool:
    """Name the folder in the settings file of this directory if it has none; return whether that was done."""
    if SETTINGS_FILE.exists():
        return False
    SETTINGS_FILE.write_text(f'config = "{folder}"\n', encoding="utf-8")
    return True
