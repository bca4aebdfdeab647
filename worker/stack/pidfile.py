"""Marks of the processes we started, so that a later start finds what a killed supervisor left, and never takes a stranger for it.

A pid alone is not enough: it may have been given to another process since. A mark is the pid and the moment of birth.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.stack.private_files import read_json, write_private


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    pid: int
    born: str

    def is_alive(self) -> bool:
        """Whether this very process still runs (a zombie does not)."""
        return birth_time(self.pid) == self.born

    def send(self, number: signal.Signals) -> None:
        """Signal the process if it is still the same one."""
        if self.is_alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, gently: signal.Signals, *, within: float) -> None:
        """Ask the process to end, wait, then kill it and wait until it is gone."""
        self.send(gently)
        if not wait_until(lambda: not self.is_alive(), within=within):
            self.send(signal.SIGKILL)
            wait_until(lambda: not self.is_alive(), within=10)


def birth_time(pid: int) -> str | None:
    """When a process was born, as text that no later process with its pid repeats; None where it is gone or a zombie."""
    try:
        # The name in parentheses may hold anything, spaces too; what follows the last one is regular.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return None if Path("/proc/self").exists() else _birth_time_by_ps(pid)
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def identity_of(pid: int) -> ProcessIdentity | None:
    """The mark of a running process."""
    moment = birth_time(pid)
    return ProcessIdentity(pid=pid, born=moment) if moment else None


def write_pidfile(folder: Path, name: str, identity: ProcessIdentity) -> None:
    """Remember a child's mark."""
    write_private(folder / f"{name}.pid", json.dumps(asdict(identity)))


def remove_pidfile(folder: Path, name: str) -> None:
    """Forget a child's mark."""
    (folder / f"{name}.pid").unlink(missing_ok=True)


def read_pidfile(folder: Path, name: str) -> ProcessIdentity | None:
    """The mark of a child as kept, alive or not."""
    found = read_json(folder / f"{name}.pid")
    try:
        return ProcessIdentity(pid=int(found["pid"]), born=str(found["born"]))
    except (KeyError, ValueError):
        return None


def wait_until(condition: Callable[[], bool], *, within: float) -> bool:
    """Poll until it holds; False after `within` seconds."""
    end = time.monotonic() + within
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def _birth_time_by_ps(pid: int) -> str | None:
    found = subprocess.run(("ps", "-o", "stat=,lstart=", "-p", str(pid)), capture_output=True, text=True, check=False).stdout.split(
        maxsplit=1
    )
    return found[1].strip() if len(found) == 2 and not found[0].startswith("Z") else None
