"""What is started for a job, and the last steps of starting it: set limits, drop rights, read its variables in.

The job's environment never reaches a program that still has rights (glibc loads code that variables name), nor any command line:
a shell that has already lost them reads it from an unnamed file in memory.
"""

from __future__ import annotations

import os
import resource
import shlex
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from activities.process.interpreters import PYTHON_NAMES, Interpreter
from justenough.domain.core.secret import Secret
from justenough.domain.jobs.spec import ResourceLimits

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
CLEAN_ENV: Mapping[str, str] = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8"}
"""The whole environment of the programs that still have rights."""
NOT_STARTED_EXIT_CODE = 126
"""The exit code of a job whose files could not be written, as a shell's."""
DATA_LIMIT_FACTOR = 2
"""How many times its `memory` each process may map for itself: much of that is never used (threads' stacks), and only the kernel's own bound
holds at once."""
CPU_MARGIN_S = 2
"""Seconds of processor time that one process gets beyond `cpu`: whoever adds up the whole job comes first, and knows why it ends."""
CPU_KILL_GRACE_S = 2
"""Seconds of processor time between SIGXCPU and SIGKILL."""
OOM_SCORE_ADJUST = 1000
"""How readily the kernel ends these processes when the machine has no memory left: before the worker and the servers."""

# The variables come in by the standard input, which is then closed to the job.
_START = 'ulimit -c 0; . /dev/stdin && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class JobLaunch:
    """What is started. Cannot print its secrets."""

    job: str
    argv: tuple[str, ...]
    uid: int
    interpreter: Interpreter
    workdir: Path | None = None
    """An unpacked bundle; None for an empty folder."""
    network: Literal["host", "none"] = "host"
    env: Mapping[str, str | Secret] = field(default_factory=dict, repr=False)
    """The spec's and the delivered variables."""
    files: Mapping[str, Secret] = field(default_factory=dict, repr=False)
    """Delivered files, by their paths in the room's `files`."""
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Variables that name delivered files."""
    broker: Path | None = None
    """The socket of the job's broker, on this machine."""
    limits: ResourceLimits = field(default_factory=ResourceLimits)


@dataclass(frozen=True, slots=True)
class Room:
    """The paths of a job's folders and its broker, as the job sees them."""

    workdir: str = "/job"
    home: str = "/home/job"
    files: str = "/run/justenough"
    scratch: str = "/tmp"  # noqa: S108 - private, inside the sandbox
    broker: str = "/run/justenough/broker.sock"


@dataclass(frozen=True, slots=True)
class PreparedCommand:
    """How to start a job: a command line and the open files that it inherits. Holds no secret itself."""

    argv: tuple[str, ...]
    stdin: int
    pass_fds: tuple[int, ...] = ()
    cwd: str = "/"


def job_command(launch: JobLaunch) -> tuple[str, ...]:
    """Return the end of every command line: the shell that takes the variables in, and the job's own command."""
    first, *rest = launch.argv
    return ("/bin/sh", "-c", _START, "sh", str(launch.interpreter.path) if first in PYTHON_NAMES else first, *rest)


def environment_script(launch: JobLaunch, room: Room) -> Secret:
    """Return the job's files and its whole environment as shell statements. What the room sets wins over what a spec sets."""
    given = {name: value.reveal() if isinstance(value, Secret) else value for name, value in launch.env.items()}
    own = {
        "PATH": f"{launch.interpreter.path.parent}:{SYSTEM_PATH}",
        "HOME": room.home,
        "USER": "job",
        "LOGNAME": "job",
        "TMPDIR": room.scratch,
        "PWD": room.workdir,
        "JUSTENOUGH_JOB_ID": launch.job,
        "JUSTENOUGH_FILES": room.files,
        **{name: ":".join(f"{room.files}/{path}" for path in paths) for name, paths in launch.paths.items()},
        **({"JUSTENOUGH_BROKER": room.broker} if launch.broker else {}),
    }
    # Unbuffered: a Python's output must reach the log when it is printed, not only if the process ends well.
    whole = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **given, **own}
    # The job's own user writes them, so that it owns them and nobody else can read them: libpq accepts no other password file.
    # If one cannot be written, no job starts.
    files = [
        f"(umask 077; printf %s {shlex.quote(content.reveal())} >{shlex.quote(f'{room.files}/{path}')}) || exit {NOT_STARTED_EXIT_CODE}\n"
        for path, content in launch.files.items()
    ]
    return Secret("".join((*files, *(f"export {name}={shlex.quote(value)}\n" for name, value in whole.items()))))


def limits_command(limits: ResourceLimits, *, own_user: bool) -> tuple[str, ...]:
    """Return the command that has the kernel limit each process that follows it, and kill those first when memory runs out."""
    seconds = limits.cpu + CPU_MARGIN_S
    bounds = {
        "core": (resource.RLIMIT_CORE, 0),
        "cpu": (resource.RLIMIT_CPU, seconds + CPU_KILL_GRACE_S),
        "data": (resource.RLIMIT_DATA, limits.memory * DATA_LIMIT_FACTOR),
        "fsize": (resource.RLIMIT_FSIZE, limits.file_size),
        "nofile": (resource.RLIMIT_NOFILE, limits.open_files),
        # Counted by user: the worker's own processes would count with a job's that runs as the same one.
        **({"nproc": (resource.RLIMIT_NPROC, limits.processes)} if own_user else {}),
    }
    hard = {name: _within_hard_limit(which, value) for name, (which, value) in bounds.items()}
    soft = {**hard, "cpu": min(seconds, hard["cpu"])}
    flags = (f"--{name}={soft[name]}:{hard[name]}" for name in bounds)
    return ("/usr/bin/choom", "-n", str(OOM_SCORE_ADJUST), "--", "/usr/bin/prlimit", *flags, "--")


def drop_rights_command(uid: int) -> tuple[str, ...]:
    """Return the command that runs what follows it as a user without any rights."""
    user = ("--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    return ("/usr/bin/setpriv", *user, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--")


def die_with_parent_command() -> tuple[str, ...]:
    """Return the command that has what follows it killed when the worker dies. Use it after dropping rights, which would undo it."""
    return ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")


@contextmanager
def open_memory_file(content: Secret | bytes) -> Iterator[int]:
    """Hold open an unnamed file in memory with this content, at its start, for a child to inherit."""
    data = content if isinstance(content, bytes) else content.reveal().encode()
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("justenough")
        with os.fdopen(os.dup(handle), "wb") as file:
            file.write(data)
        os.lseek(handle, 0, os.SEEK_SET)
    else:
        handle = _pipe(data)
    try:
        yield handle
    finally:
        os.close(handle)


def _within_hard_limit(which: int, value: int) -> int:
    """Return the value, or the worker's own hard limit if that is less: no process can get more."""
    own = resource.getrlimit(which)[1]
    return value if own == resource.RLIM_INFINITY else min(value, own)


def _pipe(content: bytes) -> int:
    """Return the read end of a pipe with this content, for systems without memfd (macOS). A thread feeds it: it may hold less than the content."""
    end, start = os.pipe()

    def feed() -> None:
        with os.fdopen(start, "wb") as file:
            file.write(content)

    threading.Thread(target=feed, daemon=True).start()
    return end
