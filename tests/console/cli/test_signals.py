"""A signal in the middle of a command ends it without a traceback, restores the terminal, and leaves no server running."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.cli.conftest import ROOT, Cli, run_on_terminal
from tests.support.child_process import run_child
from tests.support.terminal_signals import interruptible_command
from worker.stack.control import stop_stack
from worker.stack.paths import StackPaths
from worker.stack.pidfile import read_pidfile, supervisor_of, wait_until
from worker.stack.stack_file import CHILDREN

ENDING = (signal.SIGTERM, signal.SIGHUP)
WHILE_LOADING = """
import os, sys

number, module, shown = int(sys.argv[1]), sys.argv[2], sys.argv[3]
del sys.argv[1:4]

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            try:
                os.kill(os.getpid(), number)
            finally:
                print(shown, flush=True)

sys.meta_path.insert(0, Finder())
from console.cli.main import main
main()
"""
"""A program that gets a signal when it loads a module. It prints a text if the signal does not end it at once."""


def is_echoing(terminal: int) -> bool:
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)])
def test_a_signal_while_the_program_loads_ends_it_without_a_traceback(alone: Cli, number: signal.Signals, code: int) -> None:
    command = interruptible_command([sys.executable, "-c", WHILE_LOADING, str(int(number)), "console.cli.root_group", "", "job", "list"])
    done = subprocess.run(command, cwd=ROOT, env=alone.env(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (code, "\n", "")


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("server, module", [("worker", "worker.main"), ("console", "console.server")])
def test_a_server_is_ended_at_once_until_it_has_handlers_of_its_own(alone: Cli, number: signal.Signals, server: str, module: str) -> None:
    command = [sys.executable, "-c", WHILE_LOADING, str(int(number)), module, "it goes on", server]
    done = subprocess.run(command, cwd=ROOT, env=alone.env(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (-number, "", "")


@pytest.mark.parametrize("number", ENDING)
def test_a_password_prompt_that_a_signal_ends_leaves_a_terminal_that_echoes(alone: Cli, number: signal.Signals) -> None:
    with run_on_terminal(alone, "login", "--user", "ops", VAULT_ADDR="http://127.0.0.1:1") as (process, terminal):
        terminal.read_until(b"Password:")
        assert wait_until(lambda: not is_echoing(terminal.descriptor), within=240)
        process.send_signal(number)
        assert process.wait(240) == -number
        assert is_echoing(terminal.descriptor)


@pytest.mark.servers
@pytest.mark.parametrize("number", ENDING)
def test_a_live_display_that_a_signal_ends_shows_the_cursor_again(cli: Cli, number: signal.Signals) -> None:
    with run_on_terminal(cli, "request", "watch", who="lead", whole=True) as (process, terminal):
        terminal.read_until(b"Press Ctrl-C to stop.")
        process.send_signal(number)
        assert "\x1b[?25h" in terminal.read_until(b"\x1b[?25h")
        assert process.wait(240) == -number


@pytest.fixture
def starting() -> Iterator[Cli]:
    """Yield the program with a home that other users can pass through, so that PostgreSQL runs without bubblewrap even if we are root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        cli = Cli(home=Path(folder) / "home", config=ROOT / "examples" / "shop", logins=Path(folder) / "logins")
        try:
            yield cli
        finally:
            stop_stack(StackPaths(cli.home))


@pytest.mark.servers
@pytest.mark.parametrize("number", ENDING)
def test_a_detached_start_that_a_signal_ends_leaves_no_server(starting: Cli, number: signal.Signals) -> None:
    places = StackPaths(starting.home)
    with run_child(
        [sys.executable, "-m", "console.cli", "up", "--detach"], cwd=ROOT, env=starting.env(), stderr=subprocess.PIPE
    ) as process:
        assert process.stderr
        assert process.stderr.readline() == b"starting temporal\n"
        process.send_signal(number)
        assert process.wait(300) == -number
    assert supervisor_of(places) is None
    assert not any(child.is_alive() for name in CHILDREN if (child := read_pidfile(places.run, name)))
