"""The program as people use it: each with a login file of their own, against the whole stack."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from console.cli.root_group import build_program
from tests.support.child_process import run_child
from tests.support.terminal_signals import interruptible_command
from worker.stack.stack_file import Stack

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Cli:
    """The program, and where it keeps logins and finds the stack."""

    home: Path
    config: Path
    logins: Path

    def env(self, **more: str) -> dict[str, str]:
        """The environment of a command: nothing of this process's settings, and no size of a terminal but that of its own."""
        ours = ("JUSTENOUGH_", "VAULT_", "NO_COLOR", "LINES", "COLUMNS")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        settings = {"JUSTENOUGH_HOME": str(self.home), "JUSTENOUGH_CONFIG": str(self.config), "XDG_CONFIG_HOME": str(self.logins)}
        return {**kept, **settings, **more}

    def run(self, *arguments: object, who: str = "ops", stdin: str = "", env: Mapping[str, str] | None = None) -> Result:
        """Run one command as a person, here in this process."""
        words = ["--profile", who, *map(str, arguments)]
        gone: dict[str, str | None] = {name: None for name in os.environ if name not in self.env()}
        return CliRunner().invoke(build_program(), words, input=stdin, env={**gone, **self.env(), **(env or {})}, prog_name="justenough")

    def json(self, *arguments: object, who: str = "ops", code: int = 0, env: Mapping[str, str] | None = None) -> Any:
        """Return what a command prints as JSON; fails where its exit code is another."""
        done = self.run(*arguments, "-o", "json", who=who, env=env)
        assert done.exit_code == code, f"exit {done.exit_code}: {done.stderr}"
        return json.loads(done.stdout)

    def login_file(self, who: str) -> Path:
        """Where a person's login is kept."""
        return self.logins / "justenough" / f"{who}.json"


@pytest.fixture
def alone(tmp_path: Path) -> Cli:
    """The program where no stack runs and nobody is logged in."""
    return Cli(home=tmp_path / "home", config=tmp_path / "shop", logins=tmp_path / "logins")


@pytest.fixture(scope="session")
def cli(whole: Stack) -> Iterator[Cli]:
    """The program with the shop's people logged in."""
    with tempfile.TemporaryDirectory(prefix="je-cli-") as folder:
        found = Cli(home=whole.home, config=whole.config, logins=Path(folder))
        for who, user in whole.users.items():
            done = found.run("login", "--user", who, "--password-stdin", who=who, stdin=user.password)
            assert done.exit_code == 0, done.stderr
        yield found


@pytest.fixture
def fresh(whole: Stack, tmp_path: Path) -> Cli:
    """The program at the whole stack, nobody logged in yet."""
    return Cli(home=whole.home, config=whole.config, logins=tmp_path / "logins")


@contextmanager
def run_on_terminal(
    cli: Cli, *arguments: object, who: str = "ops", whole: bool = False, columns: int = 80, rows: int = 24, **env: str
) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """Run a command whose stdin and stderr (`whole`: stdout too) are a terminal: the process, and the terminal's other end."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (rows, columns))
    command = [sys.executable, "-m", "console.cli", "--profile", who, *map(str, arguments)]
    try:
        stdout = theirs if whole else subprocess.PIPE
        env = cli.env(TERM="xterm", **env)
        with run_child(interruptible_command(command), env=env, stdin=theirs, stdout=stdout, stderr=theirs) as process:
            os.close(theirs)
            yield process, Terminal(ours)
    finally:
        os.close(ours)


READ_TIMEOUT_S = 240
LAST_BYTES = 3000
"""How much of the terminal a failure shows."""


class Terminal:
    """Our end of a terminal."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._unread = b""

    def read_until(self, text: bytes) -> str:
        """Return what the terminal shows next, up to and including some text, or up to the end of the program. Fails after READ_TIMEOUT_S."""
        end = time.monotonic() + READ_TIMEOUT_S
        while text not in self._unread:
            is_readable, _, _ = select.select([self.descriptor], [], [], 1)
            assert time.monotonic() < end, f"the terminal does not show {text!r}; it shows {self._unread[-LAST_BYTES:]!r}"
            if not is_readable:
                continue
            try:
                more = os.read(self.descriptor, 4096)
            except OSError:
                # Linux reports a closed other end in this way; other systems return no data.
                more = b""
            if not more:
                text = self._unread
                break
            self._unread += more
        shown, found, self._unread = self._unread.partition(text) if text else (b"", b"", b"")
        return (shown + found).decode()

    def write(self, text: bytes) -> None:
        """Type something."""
        os.write(self.descriptor, text)


def write_spec(folder: Path, command: list[str], *, access: list[dict[str, Any]] | None = None, **more: Any) -> Path:
    """Write a job's spec (JSON is YAML) and return its path."""
    run = {"command": command, "timeout": "2m", **more.pop("run", {})}
    raw = {"name": "from-the-cli", "task": "Show what the command line does", "environment": "prod", "run": run, "access": access or []}
    path = folder / "job.yaml"
    path.write_text(json.dumps({**raw, **more}), encoding="utf-8")
    return path


def complete(cli: Cli, line: str) -> list[str]:
    """What a press of TAB at the end of a line shows."""
    variables = {"_JUSTENOUGH_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    program = [sys.executable, "-m", "console.cli"]
    return subprocess.run(program, cwd=ROOT, env=cli.env(**variables), capture_output=True, text=True, check=True).stdout.split()
