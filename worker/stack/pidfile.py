"""Pidfiles: a later start finds the processes that a killed supervisor left running, and does not mistake another process for one of them.

A pid alone is not enough, because the kernel may have reused it. A pidfile holds the pid and the birth time. One supervisor runs per home: it
holds a file lock that the kernel releases when its holder dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from justenough.adapters.runtime.private_files import read_json, write_private
from justenough.domain.core.errors import Conflict
from worker.stack.paths import StackPaths

SUPERVISOR = "supervisor"
LOCK_TIMEOUT_S = 30
"""Maximum time between a process's taking the lock and writing its pidfile."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    pid: int
    born: str

    def is_alive(self) -> bool:
        """Whether the same process is still running. A zombie is not."""
        return birth_time(self.pid) == self.born

    def send(self, number: signal.Signals) -> None:
        """Signal the process if it is still the same one."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, stop_signal: signal.Signals, *, within: float) -> None:
        """Ask the process to end, wait, then kill it and wait until it is gone."""
        self.send(stop_signal)
        if not wait_until(lambda: not self.is_alive(), within=within):
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.is_alive(), within=10)


def birth_time(pid: int) -> str | None:
    """Return the birth time of a process, as text that no later process with its pid has; None if it is gone or a zombie.

    On Linux this is not psutil's create_time, which depends on the wall clock: a pidfile must still match after the clock was set.
    """
    try:
        # The name in parentheses may contain anything, spaces too. The fields after the last parenthesis are separated by spaces.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return None if fields[0] in "ZX" else f"{boot} {fields[19]}"
    except OSError:
        if Path("/proc/self").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else str(process.create_time())
    except psutil.NoSuchProcess:
        return None


def identity_of(pid: int) -> ProcessIdentity | None:
    """Return the identity of a running process; None if it does not run."""
    born = birth_time(pid)
    return ProcessIdentity(pid=pid, born=born) if born else None


def write_pidfile(folder: Path, name: str, identity: ProcessIdentity) -> None:
    write_private(folder / f"{name}.pid", json.dumps(asdict(identity)))


def remove_pidfile(folder: Path, name: str) -> None:
    (folder / f"{name}.pid").unlink(missing_ok=True)


def read_pidfile(folder: Path, name: str) -> ProcessIdentity | None:
    """Return the identity in a child's pidfile, whether or not it still runs; None if there is none."""
    content = read_json(folder / f"{name}.pid")
    try:
        return ProcessIdentity(pid=int(content["pid"]), born=str(content["born"]))
    except (KeyError, ValueError):
        return None


def wait_until(condition: Callable[[], bool], *, within: float) -> bool:
    """Poll until the condition is true. Return False after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


class AlreadyRunning(Conflict):
    """Another supervisor runs in this home."""


@contextlib.contextmanager
def hold_supervisor_lock(paths: StackPaths) -> Iterator[None]:
    """Hold the home's lock during a block. Raises AlreadyRunning, normally once `supervisor_of` can return the holder."""
    descriptor = os.open(paths.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Its holder may have yet to write its pidfile, or may be about to end.
        wait_until(lambda: _try_lock(descriptor) or supervisor_of(paths) is not None, within=LOCK_TIMEOUT_S)
        if not _try_lock(descriptor):
            raise AlreadyRunning(f"a stack is already running in {paths.home}")
        identity = identity_of(os.getpid())
        assert identity is not None
        # A reader of the pidfile must not take a killed supervisor's stack.json for this one's.
        paths.stack.unlink(missing_ok=True)
        write_pidfile(paths.run, SUPERVISOR, identity)
        yield
        remove_pidfile(paths.run, SUPERVISOR)
    finally:
        os.close(descriptor)


def supervisor_of(paths: StackPaths) -> ProcessIdentity | None:
    """Return the supervisor that runs in this home; None if none runs."""
    identity = read_pidfile(paths.run, SUPERVISOR)
    return identity if identity is not None and identity.is_alive() else None


def _try_lock(descriptor: int) -> bool:
    """Take the lock if it is free, and return whether this process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
