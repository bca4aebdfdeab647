"""`justenough demo`: the shop's jobs on real servers, told by the very commands that a user types; exit 0 only if every ending is proven."""

from __future__ import annotations

import json
import queue
import shlex
import signal
import sys
from pathlib import Path

from console.cli.client.config import home
from console.cli.demo.environment import BOLD, PLAIN, DemoEnvironment, DemoFailed, say
from console.cli.demo.scenario import run_scenario
from console.cli.json_object import Json
from console.cli.render.output import print_table

__all__ = ["run_demo"]


def run_demo(*, keep_running: bool = False) -> int:
    """Run the demo; return 0 where every credential was seen to work and then to be dead, 1 otherwise.

    With `stays` the servers run on in JUSTENOUGH_HOME, whatever came of it. KeyboardInterrupt, which SIGTERM is too, stops what was started.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = 1
    try:
        with DemoEnvironment.open(keep_running=keep_running) as stage:
            code = run_scenario(stage)
    except DemoFailed as failed:
        say(f"\ndemo failed: {failed}")
    except queue.Empty:
        say("\ndemo failed: a job did not hand its login over")
    if keep_running:
        print_running_stack(home().absolute())
    return code


def print_running_stack(home: Path) -> None:
    """Print where the stack of a home is and who its users are, with the passwords of this evaluation; nothing where none runs."""
    file = home / "stack.json"
    if not file.exists():
        return
    stack: Json = json.loads(file.read_text())
    say(f"\n{BOLD}The servers run on.{PLAIN} Their data is in {home}; they are for evaluation, and answer on this machine only.")
    print_table(("WHAT", "ADDRESS"), [("console", stack["console"]), ("Temporal", stack["temporal_ui"]), ("Vault", stack["vault"])])
    say()
    print_table(
        ("USER", "PASSWORD", "GROUPS"), [(name, user["password"], ", ".join(user["groups"])) for name, user in stack["users"].items()]
    )
    say(f"\nLog in: {_command(home)} login --user lead")
    say(f"Stop:   {_command(home)} down")


def _command(home: Path) -> str:
    """Return how to call this program for a home, to be copied."""
    program = Path(sys.executable).with_name("justenough")
    here = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    return f"JUSTENOUGH_HOME={shlex.quote(str(home))} {shlex.quote(str(here if program.exists() else 'justenough'))}"
