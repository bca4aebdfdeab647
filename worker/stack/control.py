"""Starting and stopping the stack from outside its supervisor: what `justenough up` and `down`, and the tests, call."""

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
from worker.stack.environment import supervisor_environment
from worker.stack.lifeline import held_lifeline
from worker.stack.lock import AlreadyRunning, supervisor_of
from worker.stack.paths import StackPaths
from worker.stack.pidfile import read_pidfile, wait_until
from worker.stack.stack_file import CHILDREN, Stack, read_stack
from worker.stack.start_progress import parse_report
from worker.stack.supervisor import end_orphans, make_home

START_TIMEOUT_S = 180.0
"""Seconds that another's start may take until we give up waiting for it."""
STOP_TIMEOUT_S = 300.0
"""Seconds until a supervisor is killed that does not end; it limits each of its children itself, the worker by its drain."""

Tell = Callable[[str], None]


class StackNotStarted(RetryLater):
    """The supervisor gave up; the message is its reason."""


def find_running_stack(places: StackPaths) -> Stack | None:
    """The stack that runs in this home and is ready; None where none is (what a killed supervisor left counts as none)."""
    return read_stack(places) if supervisor_of(places) else None


def start_detached(
    settings: Settings,
    *,
    only: Iterable[str] = CHILDREN,
    provision: bool = True,
    lifeline: int | None = None,
    tell: Tell = lambda _: None,
) -> Stack:
    """Start a supervisor in a session of its own and return once the stack is ready; the running one's, if there is one.

    `lifeline` is the reading end of a pipe: the stack stops when the writing end is closed. Without it the stack outlives us.
    Raises StackNotStarted; then nothing of it runs.
    """
    places = StackPaths.of(settings.home)
    if supervisor_of(places):
        return _wait_for_other(places)
    make_home(places)
    try:
        _start_supervisor(settings, places, only=only, provision=provision, lifeline=lifeline, tell=tell)
    except AlreadyRunning:
        return _wait_for_other(places)
    stack = read_stack(places)
    if stack is None:
        raise StackNotStarted(_see_log(places, "the stack ended right after its start"))
    return stack


def stop_stack(places: StackPaths) -> tuple[str, ...]:
    """Stop the stack and whatever a killed supervisor left; return the names of what was stopped, empty where nothing ran."""
    # By the marks, not by stack.json: this is the remedy for a damaged one.
    supervisor, names = supervisor_of(places), _live_children(places)
    if supervisor is not None:
        supervisor.send(signal.SIGTERM)
        # One that was stopped (SIGSTOP) must go on in order to end.
        supervisor.send(signal.SIGCONT)
        if not wait_until(lambda: not supervisor.is_alive(), within=STOP_TIMEOUT_S):
            supervisor.send(signal.SIGKILL)
            wait_until(lambda: not supervisor.is_alive(), within=10)
    left = end_orphans(places)
    places.stack.unlink(missing_ok=True)
    return (names or ("supervisor",)) if supervisor else left


@contextlib.contextmanager
def running_stack(home: Path, config: Path, *, only: Iterable[str] = CHILDREN, provision: bool = True, drain: int = 30) -> Iterator[Stack]:
    """A stack for the length of a block: started, or the one that already runs there; stopped only if it was started here.

    It stops, too, if this process is killed.
    """
    settings = Settings(home=home, config=config, drain=drain)
    ours = find_running_stack(StackPaths.of(home)) is None
    with held_lifeline() as lifeline:
        stack = start_detached(settings, only=only, provision=provision, lifeline=lifeline)
        try:
            yield stack
        finally:
            if ours:
                stop_stack(StackPaths.of(home))


def _live_children(places: StackPaths) -> tuple[str, ...]:
    marks = {name: read_pidfile(places.run, name) for name in CHILDREN}
    return tuple(name for name, mark in marks.items() if mark is not None and mark.is_alive())


def _start_supervisor(
    settings: Settings, places: StackPaths, *, only: Iterable[str], provision: bool, lifeline: int | None, tell: Tell
) -> None:
    """Start a supervisor and return once it is ready. Raises StackNotStarted, AlreadyRunning."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reports:
        process = _spawn_supervisor(settings, places, only=only, provision=provision, lifeline=lifeline, report_to=writing)
        try:
            _follow_start(reports, places, tell)
        except BaseException:
            process.terminate()
            process.wait(STOP_TIMEOUT_S)
            raise
    # Someone must collect it when it ends, or it stays a zombie for as long as we live.
    threading.Thread(target=process.wait, daemon=True, name="supervisor").start()


def _wait_for_other(places: StackPaths) -> Stack:
    """The stack that another supervisor runs or is just starting. Raises StackNotStarted."""
    wait_until(lambda: places.stack.exists() or supervisor_of(places) is None, within=START_TIMEOUT_S)
    stack = find_running_stack(places)
    if stack is None:
        raise StackNotStarted(_see_log(places, "another start in this home did not get ready"))
    return stack


def _spawn_supervisor(
    settings: Settings, places: StackPaths, *, only: Iterable[str], provision: bool, lifeline: int | None, report_to: int
) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-P", "-m", "worker.stack", "--only", ",".join(only), "--report-to", str(report_to)]
    if not provision:
        command.append("--no-provision")
    if lifeline is not None:
        command += ["--lifeline", str(lifeline)]
    output = os.open(places.log("supervisor"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(
            command,
            env=supervisor_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(report_to,) if lifeline is None else (report_to, lifeline),
            start_new_session=True,
        )
    finally:
        os.close(output)
        os.close(report_to)


def _follow_start(reports: Iterable[bytes], places: StackPaths, tell: Tell) -> None:
    """Pass the supervisor's steps on until it is ready. Raises StackNotStarted, AlreadyRunning."""
    for line in reports:
        step, text = parse_report(line)
        if step == "ready":
            return
        if step == "busy":
            raise AlreadyRunning(text)
        if step == "failed":
            raise StackNotStarted(text)
        tell(text)
    raise StackNotStarted(_see_log(places, "the supervisor ended without a word"))


def _see_log(places: StackPaths, what: str) -> str:
    return f"{what}; see {places.log('supervisor')}"
