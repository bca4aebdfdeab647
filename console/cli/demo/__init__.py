"""`justenough demo`: runs the example shop's jobs on real servers with this program's commands. Exit 0 only if every credential is verified as revoked."""

from __future__ import annotations

import json
import queue
import shlex
import signal
import sys
from pathlib import Path

from console.cli.client.config import home
from console.cli.demo.environment import BOLD, PLAIN, DemoEnvironment, DemoFailed, say
from console.cli.demo.guide import print_guide
from console.cli.demo.open_scenario import populate
from console.cli.demo.scenario import run_scenario
from console.cli.json_object import Json
from console.cli.render.output import print_table


def run_demo(*, keep_running: bool = False) -> int:
    """Run the demo; return 0 if every credential worked and was then verified as revoked, else 1.

    With `keep_running` the servers keep running in JUSTENOUGH_HOME, even after a failure. KeyboardInterrupt, SIGTERM and SIGHUP stop what was started.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        # A program that nohup started must keep ignoring SIGHUP.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    code, population = 1, None
    try:
        with DemoEnvironment.open(keep_running=keep_running) as environment:
            code = run_scenario(environment)
            if keep_running and code == 0:
                if environment.shop:
                    population = populate(environment, environment.shop)
                else:
                    say(
                        "\nThe servers use a configuration that is not the demo's own, so no more jobs are launched. To get them, unset JUSTENOUGH_CONFIG."
                    )
    except DemoFailed as failed:
        code = 1
        say(f"\ndemo failed: {failed}")
    except queue.Empty:
        code = 1
        say("\ndemo failed: a job did not report its database login")
    if keep_running:
        print_running_stack(home().absolute())
    if population:
        print_guide(population)
    return code


def print_running_stack(home: Path) -> None:
    """Print the addresses and users of the stack in a home, with their passwords, which are for evaluation only. Print nothing if no stack runs."""
    file = home / "stack.json"
    if not file.exists():
        return
    stack: Json = json.loads(file.read_text())
    say(
        f"\n{BOLD}The servers are still running.{PLAIN} Their data is in {home}. They are for evaluation only and accept connections from this machine only."
    )
    print_table(("SERVER", "ADDRESS"), [("console", stack["console"]), ("Temporal", stack["temporal_ui"]), ("Vault", stack["vault"])])
    say()
    print_table(
        ("USER", "PASSWORD", "GROUPS"), [(name, user["password"], ", ".join(user["groups"])) for name, user in stack["users"].items()]
    )
    say(f"\nLog in: {_command(home)} login --profile lead --user lead")
    say(f"Stop:   {_command(home)} down")


def _command(home: Path) -> str:
    """Return the command line that runs this program for a home, ready to copy."""
    program = Path(sys.executable).with_name("justenough")
    shown = program.relative_to(Path.cwd()) if program.is_relative_to(Path.cwd()) else program
    return f"JUSTENOUGH_HOME={shlex.quote(str(home))} {shlex.quote(str(shown if program.exists() else 'justenough'))}"
