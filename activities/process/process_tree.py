"""Finds the processes that belong to a job, and signals all of them. Reads /proc; without it (macOS) it finds none."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from activities.process.job_command import CLEAN_ENV, drop_rights_command

PROC = Path("/proc")
KCMP_SYSCALL = {"x86_64": 312, "aarch64": 272}
"""Number of the kcmp system call, by machine."""
KCMP_VM = 1
_libc = ctypes.CDLL(None)

Belongs = Callable[[int], bool]
"""Whether the process with this pid belongs to a job and is alive."""
NONE: Belongs = frozenset[int]().__contains__
"""Matches no process."""


def of_uid(uid: int) -> Belongs:
    """Match processes that run as a user id, in any of its four roles."""
    return lambda pid: str(uid) in _status(pid).get("Uid", "").split() and _is_alive(pid)


def of_namespace(inode: int) -> Belongs:
    """Match processes in a pid namespace, except the first, which is bubblewrap's own."""
    return lambda pid: is_in_namespace(pid, inode) and _status(pid).get("NSpid", "").split()[-1:] != ["1"] and _is_alive(pid)


def is_in_namespace(pid: int, inode: int | None) -> bool:
    """Whether a process is in a pid namespace. A dead process is in none."""
    try:
        return (PROC / str(pid) / "ns" / "pid").stat().st_ino == inode
    except OSError:
        return False


def of_session(leader: int, mark: str) -> Belongs:
    """Match processes of a session, and those whose environment still contains the mark (`NAME=value`)."""
    return lambda pid: (read_stat(pid)[3:4] == [str(leader)] or mark.encode() in _environment(pid)) and _is_alive(pid)


def of_mark(mark: str, *, uid: int) -> Belongs:
    """Match processes that run as a user id and whose environment contains the mark (`NAME=value`)."""
    by_user = of_uid(uid)
    return lambda pid: by_user(pid) and mark.encode() in _environment(pid)


def find(belongs: Belongs) -> list[int]:
    """Return the pids that match now."""
    if not PROC.is_dir():
        return []
    return [pid for pid in (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()) if belongs(pid)]


def descendants(ancestor: int, *, limit: int) -> list[int]:
    """Return a process's descendants, including zombies, and not many more than `limit` of them."""
    pids: list[int] = []
    parents = [ancestor]
    while parents and len(pids) <= limit:
        parent = parents.pop()
        # Each thread lists the children that it started.
        children = [int(child) for thread in threads(parent) for child in read_proc(parent, f"task/{thread}/children").split()]
        pids += children
        parents += children
    return pids


def threads(pid: int) -> list[int]:
    try:
        return [int(thread.name) for thread in (PROC / str(pid) / "task").iterdir()]
    except OSError:
        return []


def shares_memory(pid: int, other: int) -> bool:
    """Whether two processes share one address space. False if the kernel does not report it."""
    number = KCMP_SYSCALL.get(platform.machine())
    return number is not None and _libc.syscall(number, pid, other, KCMP_VM, 0, 0) == 0


def lists_children() -> bool:
    return (PROC / "self" / "task" / str(threading.get_native_id()) / "children").exists()


def signal_all(belongs: Belongs, number: signal.Signals) -> list[int]:
    """Signal all that match, never a later process with a reused pid; return the pids that matched."""
    pids = find(belongs)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError), open_pidfd(pid) as handle:
            # The handle stays with one process, even if the pid was reused: check again that it matches.
            if belongs(pid):
                signal.pidfd_send_signal(handle, number)
    return pids


@contextlib.contextmanager
def open_pidfd(pid: int) -> Iterator[int]:
    """Yield a pidfd. Raises ProcessLookupError if there is no such process."""
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)


def kill_user(uid: int) -> bool:
    """Kill every process of a job's user id at once, and return whether that was done. Only root can. Blocks.

    `signal_all` misses a process that forks and exits again and again. The process that kills may not
    start on a machine that is full, and one of the job's processes may kill it first.
    """
    argv = (*drop_rights_command(uid), "/bin/sh", "-c", "kill -s KILL -- -1 || true")
    with contextlib.suppress(OSError):
        return subprocess.run(argv, env=CLEAN_ENV, cwd="/", stderr=subprocess.DEVNULL, check=False).returncode == 0
    return False


def is_dead(pid: int) -> bool:
    """Whether this process has ended and nobody has waited for it yet. False if /proc does not show it."""
    return read_stat(pid)[:1] in (["Z"], ["X"])


def anyone_runs_as(uid: int) -> bool:
    """Whether any process runs as a user id. A quick check: it misses a process that hides its memory from /proc."""
    # Use scandir: a path object for each process of the machine would cost more than the check.
    with os.scandir(PROC) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                if entry.name.isdigit() and entry.stat().st_uid == uid:
                    return True
    return False


def parent_of(pid: int) -> int | None:
    """Return a process's parent, or None if there is no such process."""
    fields = read_stat(pid)
    return int(fields[1]) if fields else None


def _is_alive(pid: int) -> bool:
    return read_stat(pid)[:1] not in ([], ["Z"], ["X"])


def read_stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on (state, parent, group, session …); empty if the process is gone."""
    return read_proc(pid, "stat").decode("utf-8", "replace").rpartition(")")[2].split()


def _status(pid: int) -> dict[str, str]:
    lines = read_proc(pid, "status").decode("utf-8", "replace").splitlines()
    return {name: value for name, _, value in (line.partition(":") for line in lines)}


def _environment(pid: int) -> list[bytes]:
    return read_proc(pid, "environ").split(b"\0")


def read_proc(pid: int, name: str) -> bytes:
    """Return one of a process's files in /proc; empty if it is gone or may not be read."""
    try:
        return (PROC / str(pid) / name).read_bytes()
    except OSError:
        return b""
