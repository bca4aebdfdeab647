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
from typing import Any

from console.cli.client import config
from console.cli.demo.login_probe import Witness

Json = dict[str, Any]
DIM, BOLD, RED, GREEN, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[32m", "\x1b[0m"
PATIENCE = 60.0
JOBS = Path("examples/shop/jobs")


class DemoFailed(Exception):
    """Something did not come out as the demo says it does."""


@dataclass(frozen=True)
class Stage:
    """A running stack, its people logged in, and a witness to whom the demo's jobs hand their logins."""

    home: Path
    stack: Json
    environment: dict[str, str]
    witness: Witness

    @classmethod
    @contextlib.contextmanager
    def opened(cls, *, stays: bool) -> Iterator[Stage]:
        """Start what is not running yet, log everyone in, and stop what was started, unless it `stays`."""
        with contextlib.ExitStack() as closing:
            # Not below a home folder, which PostgreSQL's own user may not be able to enter.
            scratch = Path(closing.enter_context(tempfile.TemporaryDirectory(prefix="justenough-demo-")))
            # What stays is where `justenough status`, `down` and the others look by themselves.
            home = (config.home() if stays or os.environ.get("JUSTENOUGH_HOME") else scratch / "home").absolute()
            environment = {**os.environ, "JUSTENOUGH_HOME": str(home), "XDG_CONFIG_HOME": str(scratch / "people"), "NO_COLOR": "1"}
            # A model of one's own would tell another story.
            for name in ("VAULT_TOKEN", "VAULT_ADDR", "JUSTENOUGH_CONSOLE_URL", "MODEL_URL"):
                environment.pop(name, None)
            if _justenough(["status"], environment).returncode == 0:
                say(f"On the servers that run in {home} already; they run on afterwards.\n")
            else:
                say("Starting real servers: Temporal, OpenBao, PostgreSQL; then our worker and console …")
                if (home / "people.json").exists():
                    say(f"With what earlier runs left in {home}; `justenough down` and rm -r begin anew.")
                began = time.monotonic()
                # The stack stops when this pipe's writing end is closed: by us at the end, or by the system if we are killed.
                reading, writing = os.pipe()
                closing.callback(os.close, writing)
                closing.push(_Ending(environment, stays=stays, lifeline=writing))
                try:
                    started = _justenough(["up", "--detach", "--lifeline", str(reading)], environment, pass_fds=(reading,))
                finally:
                    os.close(reading)
                _checked(started, "up --detach")
                say(f"Ready after {time.monotonic() - began:.1f} s.\n")
            stack = json.loads((home / "stack.json").read_text())
            stage = cls(home, stack, environment, closing.enter_context(Witness.listening(stack["shop_dsn"])))
            for name in stack["users"]:
                password = stack["users"][name]["password"]
                arguments = ["login", "--user", name, "--password-stdin", "--profile", name, "--quiet"]
                _checked(_justenough(arguments, environment, stdin=password), f"login of {name}")
            yield stage

    def act(self, who: str, *arguments: str, quiet: bool = False) -> Json:
        """Run a command as one of the people, show it, and return what it says."""
        if not quiet:
            say(f"{DIM}{who} ${PLAIN} {BOLD}justenough {' '.join(_shown(word) for word in arguments)}{PLAIN}")
        done = _justenough([*arguments, "--profile", who, "-o", "json", "--yes"], self.environment)
        _checked(done, " ".join(arguments))
        found: Json = json.loads(done.stdout) if done.stdout.strip() else {}
        return found

    def launch(self, file: str, *params: str, hands_over: bool = True) -> str:
        """Launch one of the shop's jobs as ops; return its id. `hands_over`: it gets logins, and tells them the witness."""
        told = (f"witness={self.witness.address}",) if hands_over else ()
        given = [word for pair in (*params, *told) for word in ("--param", pair)]
        return str(self.act("ops", "job", "run", str(JOBS / f"{file}.yaml"), *given, "--reason", "the demo")["id"])

    def until(self, job: str, *states: str) -> Json:
        """Return the job once it is in one of these states."""
        return self._until(job, lambda seen: seen["state"] in states, " or ".join(states))

    def asked(self, job: str, resource: str) -> Json:
        """Return the request of a running job that waits for people to let it at a resource."""

        def waiting(seen: Json) -> Json | None:
            return next((item for item in seen["requests"] if (item["resource"], item["state"]) == (resource, "pending")), None)

        seen = self._until(job, lambda seen: waiting(seen) or seen["ended_at"], f"waiting for {resource}")
        if found := waiting(seen):
            return found
        raise DemoFailed(f"{job} ended {seen['state']} ({seen['reason']}) and never asked for {resource}")

    def _until(self, job: str, so: Callable[[Json], object], what: str) -> Json:
        end = time.monotonic() + PATIENCE
        while True:
            seen = self.act("auditor", "job", "show", job, quiet=True)
            if so(seen):
                return seen
            if time.monotonic() > end:
                raise DemoFailed(f"{job} is {seen['state']}, not {what}, after {PATIENCE:.0f} s: {seen['reason']}")

    def terminate(self, job: str) -> None:
        """End a job's workflow behind our back, as an administrator of Temporal can."""
        say(f"{DIM}an administrator of Temporal ${PLAIN} {BOLD}temporal workflow terminate --workflow-id {job}{PLAIN}")
        beside = Path(sys.executable).with_name("temporal")
        program = str(beside) if beside.exists() else shutil.which("temporal") or "temporal"
        command = [program, "workflow", "terminate", "--workflow-id", job, "--address", self.stack["temporal"]]
        _checked(subprocess.run(command, capture_output=True, text=True, check=False), "temporal workflow terminate")


class _Ending:
    """Stops the servers at the end of a block: those that stay only where somebody interrupted it."""

    def __init__(self, environment: dict[str, str], *, stays: bool, lifeline: int) -> None:
        self._environment = environment
        self._stays = stays
        self._lifeline = lifeline

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Stop them."""
        interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
        if self._stays and not interrupted:
            # Any word means that the stack may outlive us. Nobody reads it if the stack did not start.
            with contextlib.suppress(BrokenPipeError):
                os.write(self._lifeline, b"stay")
            return
        if interrupted:
            say("\nInterrupted: stopping the servers …")
        # Whoever presses Ctrl-C again would leave half of it running; the command inherits what is ignored.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _justenough(["down"], self._environment)


def say(text: str = "") -> None:
    """Print a line now, in colour only on a terminal."""
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        for code in (DIM, BOLD, RED, GREEN, PLAIN):
            text = text.replace(code, "")
    print(text, flush=True)  # noqa: T201 - the demo's output is its product


def _shown(word: str) -> str:
    return f'"{word}"' if " " in word else word


def _justenough(
    arguments: list[str], environment: dict[str, str], *, stdin: str = "", pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "console.cli", *arguments]
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, check=False, pass_fds=pass_fds)


def _checked(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode != 0:
        raise DemoFailed(f"{what}: exit code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
