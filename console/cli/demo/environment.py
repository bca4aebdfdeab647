"""The demo's environment: a stack that it starts, or the one that runs in JUSTENOUGH_HOME.

Runs this program's commands as each of the stack's users, in this process: starting a process for each of the demo's steps would take
longer than the steps themselves.
"""

from __future__ import annotations

import contextlib
import contextvars
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from console.cli.client import config
from console.cli.demo.demo_shop import DemoShop
from console.cli.demo.login_probe import LoginProbe
from console.cli.errors import ExitCode
from console.cli.json_object import Json
from console.cli.root_group import build_program
from justenough.adapters.configuration.example_shop import example_shop

DIM, BOLD, RED, GREEN, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
STATE_TIMEOUT_S = 120.0
POLL_INTERVAL_S = 0.5

T = TypeVar("T")


class DemoFailed(Exception):
    """A step of the demo did not end as expected."""


@dataclass(frozen=True)
class DemoEnvironment:
    """A running stack with its users logged in, and a probe to which the demo's jobs report their database logins."""

    stack: Json
    probe: LoginProbe
    shop: DemoShop | None = None
    """The stack's configuration folder, if it is the demo's own."""

    @classmethod
    @contextlib.contextmanager
    def open(cls, *, keep_running: bool) -> Iterator[DemoEnvironment]:
        """Start the stack if none is running, log every user in, and stop what was started, unless it must keep running."""
        with contextlib.ExitStack() as closing:
            # Not in the user's home folder, which PostgreSQL's own user may be unable to enter.
            scratch = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="justenough-demo-")))
            # Servers that keep running are put where `justenough status` and `down` find them by default.
            home = (config.home() if keep_running or os.environ.get("JUSTENOUGH_HOME") else scratch / "home").absolute()
            closing.enter_context(_environment_variables(home, people=scratch / "people"))
            own_shop = DemoShop(home / "demo-shop") if keep_running and not config.setting("config", "JUSTENOUGH_CONFIG") else None
            if run_command("status").returncode == 0:
                say(f"Using the servers that are running in {home}; they keep running afterwards.\n")
            else:
                say("Starting real servers: Temporal, OpenBao, PostgreSQL; then a worker and a console …")
                if (home / "people.json").exists():
                    say(f"Using the data of earlier runs in {home}. To start from scratch, run justenough down and delete that folder.")
                if own_shop:
                    os.environ["JUSTENOUGH_CONFIG"] = str(own_shop.create())
                began = time.monotonic()
                # The stack stops when the writing end of this pipe is closed: by this program at the end, or by the system if it is killed.
                reading, writing = os.pipe()
                closing.callback(os.close, writing)
                closing.push(lambda kind, *_: _stop_stack(writing, kind, keep_running=keep_running))
                try:
                    started = run_command("up", "--detach", "--lifeline", str(reading))
                finally:
                    os.close(reading)
                _check_exit_code(started, "up --detach")
                say(f"Ready after {time.monotonic() - began:.1f} s.\n")
            stack = json.loads((home / "stack.json").read_text())
            shop = own_shop if own_shop and Path(stack["config"]) == own_shop.folder else None
            environment = cls(stack, closing.enter_context(LoginProbe.start(stack["shop_dsn"])), shop)
            environment.log_everyone_in()
            yield environment

    def log_everyone_in(self) -> None:
        """Log every user of the stack in, each with a separate profile."""
        for name, user in self.stack["users"].items():
            arguments = ("login", "--user", name, "--password-stdin", "--profile", name, "--quiet")
            _check_exit_code(run_command(*arguments, stdin=user["password"]), f"login of {name}")

    def run_as(self, person: str, *arguments: str, quiet: bool = False) -> Json:
        """Run a command as one of the users, print it unless `quiet`, and return its JSON."""
        if not quiet:
            words = (f'"{word}"' if " " in word else word for word in arguments)
            say(f"{DIM}{person} ${PLAIN} {BOLD}justenough {' '.join(words)}{PLAIN}")
        done = run_command(*arguments, "--profile", person, "-o", "json", "--yes")
        _check_exit_code(done, " ".join(arguments))
        found: Json = json.loads(done.stdout) if done.stdout.strip() else {}
        return found

    def launch(self, file: str, *params: str, hands_over: bool = True) -> str:
        """Launch one of the shop's jobs as ops; return its id. `hands_over`: whether the job reports its logins to the probe."""
        witness = (f"witness={self.probe.address}",) if hands_over else ()
        options = [word for pair in (*params, *witness) for word in ("--param", pair)]
        return str(self.run_as("ops", "job", "run", str(example_shop() / "jobs" / f"{file}.yaml"), *options, "--reason", "the demo")["id"])

    def wait_for_state(self, job: str, *states: str) -> Json:
        return self._wait_for_job(job, lambda seen: seen["state"] in states, " or ".join(states))

    def wait_for_request(self, job: str, resource: str) -> Json:
        """Wait until the job has a pending request for a resource; return the request."""

        def pending_request(seen: Json) -> Json | None:
            return next((item for item in seen["requests"] if (item["resource"], item["state"]) == (resource, "pending")), None)

        seen = self._wait_for_job(job, lambda seen: pending_request(seen) or seen["ended_at"], f"waiting for {resource}")
        if found := pending_request(seen):
            return found
        raise DemoFailed(f"{job} ended {seen['state']} ({seen['reason']}) without a request for {resource}")

    def _wait_for_job(self, job: str, condition: Callable[[Json], object], expectation: str) -> Json:
        def failure(job: Json) -> str:
            return f"{job['id']} is {job['state']}, not {expectation}, after {STATE_TIMEOUT_S:.0f} s: {job['reason']}"

        return self.repeat("job", "show", job, until=condition, failure=failure)

    def repeat(self, *arguments: str, until: Callable[[Json], object], failure: Callable[[Json], str]) -> Json:
        """Repeat a command as the auditor until its JSON is as expected; return it. Raises DemoFailed with what `failure` says of the last."""
        seen: Json = {}

        def check() -> bool | None:
            seen.update(self.run_as("auditor", *arguments, quiet=True))
            return True if until(seen) else None

        if poll_until(check, within_s=STATE_TIMEOUT_S) is None:
            raise DemoFailed(failure(seen))
        return seen

    def terminate(self, job: str) -> None:
        """Terminate a job's workflow without JustEnough, as an administrator of Temporal can."""
        say(f"{DIM}an administrator of Temporal ${PLAIN} {BOLD}temporal workflow terminate --workflow-id {job}{PLAIN}")
        beside = Path(sys.executable).with_name("temporal")
        program = str(beside) if beside.exists() else shutil.which("temporal") or "temporal"
        command = [program, "workflow", "terminate", "--workflow-id", job, "--address", self.stack["temporal"]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        _check_exit_code(done, "temporal workflow terminate")


@contextlib.contextmanager
def _environment_variables(home: Path, *, people: Path) -> Iterator[None]:
    """Make this program's commands use the demo's home and logins during a block, ignoring servers that the user's variables name."""
    before = dict(os.environ)
    os.environ.update({"JUSTENOUGH_HOME": str(home), "XDG_CONFIG_HOME": str(people)})
    # The user's own language model would change the scenario.
    for name in ("VAULT_TOKEN", "VAULT_ADDR", "JUSTENOUGH_CONSOLE_URL", "MODEL_URL"):
        os.environ.pop(name, None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _stop_stack(lifeline: int, kind: type[BaseException] | None, *, keep_running: bool) -> None:
    """Stop the servers that this program started. Servers that should keep running are stopped only if the user interrupted the demo."""
    interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
    if keep_running and not interrupted:
        # Any data on the pipe lets the stack outlive this program. Nothing reads it if the stack did not start.
        with contextlib.suppress(BrokenPipeError):
            os.write(lifeline, b"stay")
        return
    if interrupted:
        say("\nInterrupted: stopping the servers …")
    # A second Ctrl-C would leave half of the stack running.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    run_command("down")


def run_command(
    *arguments: str, stdin: str = "", program: Callable[[], Callable[..., object]] = build_program
) -> subprocess.CompletedProcess[str]:
    """Run a command; return how it ended, and what it printed. Raises KeyboardInterrupt if the command was interrupted."""
    code, stdout, stderr = 0, io.StringIO(), io.StringIO()
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(stdin.encode()))
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            # The command's options apply to nothing else.
            contextvars.copy_context().run(program(), arguments, prog_name="justenough")
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            sys.stdin = before
    if code == ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return subprocess.CompletedProcess(arguments, code, stdout.getvalue(), stderr.getvalue())


def poll_until(check: Callable[[], T | None], *, within_s: float) -> T | None:
    """Call `check` until it returns something; return that, or None after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while (result := check()) is None and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)
    return result


def say(text: str = "") -> None:
    """Print a line immediately, with colours only on a terminal."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        for code in (DIM, BOLD, RED, GREEN, PLAIN):
            text = text.replace(code, "")
    print(text, flush=True)  # noqa: T201 - the demo's output is its product


def _check_exit_code(done: subprocess.CompletedProcess[str], command: str) -> None:
    if done.returncode != 0:
        raise DemoFailed(f"{command}: exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
