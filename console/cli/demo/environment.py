"""Where the demo plays: a stack of its own (or the one that runs in JUSTENOUGH_HOME), and this program run as each of its people."""

from __future__ import annotations

import contextlib
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

from console.cli.client import config
from console.cli.demo.login_probe import LoginProbe
from console.cli.json_object import Json
from console.cli.watch.polling import poll_until

DIM, BOLD, RED, GREEN, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
STATE_TIMEOUT_S = 60.0
JOBS_FOLDER = Path("examples/shop/jobs")


class DemoFailed(Exception):
    """Something did not come out as the demo says it does."""


@dataclass(frozen=True)
class DemoEnvironment:
    """A running stack, its people logged in, and a witness to whom the demo's jobs hand their logins."""

    home: Path
    stack: Json
    variables: dict[str, str]
    probe: LoginProbe

    @classmethod
    @contextlib.contextmanager
    def open(cls, *, keep_running: bool) -> Iterator[DemoEnvironment]:
        """Start what is not running yet, log everyone in, and stop what was started, unless it `stays`."""
        with contextlib.ExitStack() as closing:
            # Not below a home folder, which PostgreSQL's own user may not be able to enter.
            scratch = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="justenough-demo-")))
            # What stays is where `justenough status`, `down` and the others look by themselves.
            home = (config.home() if keep_running or os.environ.get("JUSTENOUGH_HOME") else scratch / "home").absolute()
            environment = {**os.environ, "JUSTENOUGH_HOME": str(home), "XDG_CONFIG_HOME": str(scratch / "people"), "NO_COLOR": "1"}
            # A model of one's own would tell another story.
            for name in ("VAULT_TOKEN", "VAULT_ADDR", "JUSTENOUGH_CONSOLE_URL", "MODEL_URL"):
                environment.pop(name, None)
            if _run_cli(["status"], environment).returncode == 0:
                say(f"On the servers that run in {home} already; they run on afterwards.\n")
            else:
                say("Starting real servers: Temporal, OpenBao, PostgreSQL; then our worker and console …")
                if (home / "people.json").exists():
                    say(f"With what earlier runs left in {home}; `justenough down` and rm -r begin anew.")
                began = time.monotonic()
                # The stack stops when this pipe's writing end is closed: by us at the end, or by the system if we are killed.
                reading, writing = os.pipe()
                closing.callback(os.close, writing)
                closing.push(_StackShutdown(environment, keep_running=keep_running, lifeline=writing))
                try:
                    started = _run_cli(["up", "--detach", "--lifeline", str(reading)], environment, pass_fds=(reading,))
                finally:
                    os.close(reading)
                _check_exit_code(started, "up --detach")
                say(f"Ready after {time.monotonic() - began:.1f} s.\n")
            stack = json.loads((home / "stack.json").read_text())
            stage = cls(home, stack, environment, closing.enter_context(LoginProbe.start(stack["shop_dsn"])))
            for name in stack["users"]:
                password = stack["users"][name]["password"]
                arguments = ["login", "--user", name, "--password-stdin", "--profile", name, "--quiet"]
                _check_exit_code(_run_cli(arguments, environment, stdin=password), f"login of {name}")
            yield stage

    def run_as(self, person: str, *arguments: str, quiet: bool = False) -> Json:
        """Run a command as one of the people, show it, and return what it says."""
        if not quiet:
            say(f"{DIM}{person} ${PLAIN} {BOLD}justenough {' '.join(_quote(word) for word in arguments)}{PLAIN}")
        done = _run_cli([*arguments, "--profile", person, "-o", "json", "--yes"], self.variables)
        _check_exit_code(done, " ".join(arguments))
        found: Json = json.loads(done.stdout) if done.stdout.strip() else {}
        return found

    def launch(self, file: str, *params: str, hands_over: bool = True) -> str:
        """Launch one of the shop's jobs as ops; return its id. `hands_over`: it gets logins, and tells them the witness."""
        told = (f"witness={self.probe.address}",) if hands_over else ()
        given = [word for pair in (*params, *told) for word in ("--param", pair)]
        return str(self.run_as("ops", "job", "run", str(JOBS_FOLDER / f"{file}.yaml"), *given, "--reason", "the demo")["id"])

    def wait_for_state(self, job: str, *states: str) -> Json:
        """Return the job once it is in one of these states."""
        return self._wait_until(job, lambda seen: seen["state"] in states, " or ".join(states))

    def wait_for_request(self, job: str, resource: str) -> Json:
        """Return the request of a running job that waits for people to let it at a resource."""

        def pending_request(seen: Json) -> Json | None:
            return next((item for item in seen["requests"] if (item["resource"], item["state"]) == (resource, "pending")), None)

        seen = self._wait_until(job, lambda seen: pending_request(seen) or seen["ended_at"], f"waiting for {resource}")
        if found := pending_request(seen):
            return found
        raise DemoFailed(f"{job} ended {seen['state']} ({seen['reason']}) and never asked for {resource}")

    def _wait_until(self, job: str, condition: Callable[[Json], object], expectation: str) -> Json:
        view: Json = {}

        def check() -> Json | None:
            view.update(self.run_as("auditor", "job", "show", job, quiet=True))
            return view if condition(view) else None

        # Each check runs the whole program, which paces the loop.
        if poll_until(check, every_s=0, deadline=time.monotonic() + STATE_TIMEOUT_S) is None:
            raise DemoFailed(f"{job} is {view['state']}, not {expectation}, after {STATE_TIMEOUT_S:.0f} s: {view['reason']}")
        return view

    def terminate(self, job: str) -> None:
        """End a job's workflow behind our back, as an administrator of Temporal can."""
        say(f"{DIM}an administrator of Temporal ${PLAIN} {BOLD}temporal workflow terminate --workflow-id {job}{PLAIN}")
        beside = Path(sys.executable).with_name("temporal")
        program = str(beside) if beside.exists() else shutil.which("temporal") or "temporal"
        command = [program, "workflow", "terminate", "--workflow-id", job, "--address", self.stack["temporal"]]
        _check_exit_code(subprocess.run(command, capture_output=True, text=True, check=False), "temporal workflow terminate")


class _StackShutdown:
    """Stops the servers at the end of a block: those that stay only where somebody interrupted it."""

    def __init__(self, environment: dict[str, str], *, keep_running: bool, lifeline: int) -> None:
        self._environment = environment
        self._keep_running = keep_running
        self._lifeline = lifeline

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop them."""
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self._keep_running and not interrupted:
            # Any word means that the stack may outlive us. Nobody reads it if the stack did not start.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._lifeline, b"stay")
            return
        if interrupted:
            say("\nInterrupted: stopping the servers …")
        # Whoever presses Ctrl-C again would leave half of it running; the command inherits what is ignored.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _run_cli(["down"], self._environment)


def say(text: str = "") -> None:
    """Print a line now, in colour only on a terminal."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        for code in (DIM, BOLD, RED, GREEN, PLAIN):
            text = text.replace(code, "")
    print(text, flush=True)  # noqa: T201 - the demo's output is its product


def _quote(word: str) -> str:
    return f'"{word}"' if " " in word else word


def _run_cli(
    arguments: list[str], environment: dict[str, str], *, stdin: str = "", pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "console.cli", *arguments]
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False, pass_fds=pass_fds)


def _check_exit_code(done: subprocess.CompletedProcess[str], command: str) -> None:
    if done.returncode != 0:
        raise DemoFailed(f"{command}: exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
