"""Start and stop the stack from outside its supervisor: what `justenough up` and `down`, and the tests, call."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import RetryLater
from worker.stack.environment import own_environment
from worker.stack.paths import StackPaths
from worker.stack.pidfile import AlreadyRunning, read_pidfile, supervisor_of, wait_until
from worker.stack.stack_file import CHILDREN, Stack, read_stack
from worker.stack.starter_pipes import held_lifeline, parse_report
from worker.stack.supervisor import end_orphans, make_home

START_TIMEOUT_S = 180.0
"""How long to wait for a start or stop that another process began."""
STOP_TIMEOUT_S = 300.0
"""How long a supervisor may take to stop, besides its worker's drain time, before it is killed. It limits each of its children itself."""


class StackNotStarted(RetryLater):
    """The stack did not start; the message is the reason."""


def find_running_stack(paths: StackPaths) -> Stack | None:
    """Return the stack that runs in this home, is ready and is not stopping; None if there is none. Servers without a supervisor do not count."""
    stack = read_stack(paths) if supervisor_of(paths) else None
    return None if stack is None or stack.stopping else stack


def start_detached(
    settings: Settings,
    *,
    only: Iterable[str] = CHILDREN,
    provision: bool = True,
    lifeline: int | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> Stack:
    """Start a supervisor in a separate session and return the stack once it is ready, or the stack that already runs there.

    `lifeline` is the reading end of a pipe: the stack stops when the writing end is closed. Without it the stack outlives this process.
    Raises StackNotStarted; then no process of the stack is left.
    """
    paths = StackPaths(settings.home)
    if supervisor_of(paths):
        on_step("waiting for another start or stop in this folder")
        if stack := _wait_for_other(paths):
            return stack
    make_home(paths)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reports:
        process = _spawn_supervisor(settings, paths, only=only, provision=provision, lifeline=lifeline, report_to=writing)
        try:
            _follow_start(reports, paths, on_step)
        except BaseException as error:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            if isinstance(error, AlreadyRunning) and (stack := _wait_for_other(paths)):
                return stack
            raise
    # Without this wait the supervisor would stay a zombie until this process ends.
    threading.Thread(target=process.wait, daemon=True, name="supervisor").start()
    stack = read_stack(paths)
    if stack is None:
        raise StackNotStarted(_see_log(paths, "the stack stopped right after it started"))
    return stack


def stop_stack(paths: StackPaths, *, drain: int = 30) -> tuple[str, ...]:
    """Stop the stack, and servers that a killed supervisor left running; return the names of the stopped processes.

    `drain`: the worker's, in seconds.
    """
    # Read the pidfiles, not stack.json: `down` is the remedy for a damaged stack.json.
    supervisor, children = supervisor_of(paths), {name: read_pidfile(paths.run, name) for name in CHILDREN}
    names = tuple(name for name, child in children.items() if child is not None and child.is_alive())
    if supervisor is not None:
        # A supervisor that was suspended (SIGSTOP) must continue in order to stop.
        supervisor.send(signal.SIGCONT)
        supervisor.end(signal.SIGTERM, within=STOP_TIMEOUT_S + drain)
    orphans = end_orphans(paths, drain=drain)
    paths.stack.unlink(missing_ok=True)
    return (names or ("supervisor",)) if supervisor else orphans


@contextlib.contextmanager
def running_stack(home: Path, config: Path, *, only: Iterable[str] = CHILDREN, provision: bool = True, drain: int = 30) -> Iterator[Stack]:
    """Yield a running stack: the one in this home, or a new one, which stops at the end of the block or if this process is killed."""
    settings = Settings(home=home, config=config, drain=drain)
    is_new = find_running_stack(StackPaths(home)) is None
    with held_lifeline() as lifeline:
        stack = start_detached(settings, only=only, provision=provision, lifeline=lifeline)
        try:
            yield stack
        finally:
            if is_new:
                stop_stack(StackPaths(home), drain=drain)


def _wait_for_other(paths: StackPaths) -> Stack | None:
    """Return the stack that another supervisor runs or is starting; None if that supervisor has ended. Raises StackNotStarted."""
    wait_until(lambda: find_running_stack(paths) is not None or supervisor_of(paths) is None, within=START_TIMEOUT_S)
    stack = find_running_stack(paths)
    if stack is None and supervisor_of(paths):
        raise StackNotStarted(_see_log(paths, "another start or stop in this folder did not end"))
    return stack


def _spawn_supervisor(
    settings: Settings, paths: StackPaths, *, only: Iterable[str], provision: bool, lifeline: int | None, report_to: int
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "worker.stack", "--only", ",".join(only), "--report-to", str(report_to)]
    if not provision:
        command.append("--no-provision")
    if lifeline is not None:
        command += ["--lifeline", str(lifeline)]
    output = os.open(paths.log("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command,
            env=own_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(report_to,) if lifeline is None else (report_to, lifeline),
            start_new_session=True,
        )
    finally:
        os.close(output)
        os.close(report_to)


def _follow_start(reports: Iterable[bytes], paths: StackPaths, on_step: Callable[[str], None]) -> None:
    """Report the supervisor's steps until it is ready. Raises StackNotStarted, AlreadyRunning."""
    for line in reports:
        step, text = parse_report(line)
        if step == "ready":
            return
        if step == "busy":
            raise AlreadyRunning(text)
        if step == "failed":
            raise StackNotStarted(text)
        on_step(text)
    raise StackNotStarted(_see_log(paths, "the supervisor ended without a report"))


def _see_log(paths: StackPaths, what: str) -> str:
    return f"{what}; see {paths.log('supervisor')}"
