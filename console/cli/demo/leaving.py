"""What a demo leaves running, told: where it is, as whom to log in, and how to stop it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

from console.cli.demo.stage import BOLD, PLAIN, Json, say
from console.cli.output import rows


def tell_what_runs(home: Path) -> None:
    """Print where the stack of a home is and who its users are, with the passwords of this evaluation; nothing where none runs."""
    file = home / "stack.json"
    if not file.exists():
        return
    stack: Json = json.loads(file.read_text())
    say(f"\n{BOLD}The servers run on.{PLAIN} Their data is in {home}; they are for evaluation, and answer on this machine only.")
    rows(("WHAT", "ADDRESS"), [("console", stack["console"]), ("Temporal", stack["temporal_ui"]), ("Vault", stack["vault"])])
    say()
    rows(("USER", "PASSWORD", "GROUPS"), [(name, user["password"], ", ".join(user["groups"])) for name, user in stack["users"].items()])
    say(f"\nLog in: {_command(home)} login --user lead")
    say(f"Stop:   {_command(home)} down")


def _command(home: Path) -> str:
    """Return how to call this program for a home, to be copied."""
    program = Path(sys.executable).with_name("justenough")
    here = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    return f"JUSTENOUGH_HOME={shlex.quote(str(home))} {shlex.quote(str(here if program.exists() else 'justenough'))}"
