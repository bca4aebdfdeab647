"""Builds the command line of a job, with the last steps before its own command: set limits, drop rights, read the variables.

The job's environment never reaches a program that still has rights (glibc loads code that variables name), nor a command line:
a shell without rights reads it from an unnamed file in memory.
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
"""The complete environment of the programs that still have rights."""
NOT_STARTED_EXIT_CODE = 126
"""A job's exit code if its files could not be written; a shell's "cannot execute"."""
DATA_LIMIT_FACTOR = 2
"""Each process may map this many times the job's `memory`: most of what a process maps is never used (thread stacks)."""
CPU_MARGIN_S = 2
"""Processor seconds that one process may use beyond `cpu`, so that resource_monitor ends the job first and reports the reason."""
CPU_KILL_GRACE_S = 2
"""Processor seconds between SIGXCPU and SIGKILL."""
OOM_SCORE_ADJUST = 1000
"""The highest score: if memory runs out, the kernel kills jobs before the worker and the servers."""
DIE_WITH_PARENT_COMMAND = ("/usr/bin/setpriv", "--pdeathsig", "KILL", "--")
"""The command prefix that makes the kernel kill a program when the worker dies. Put it after drop_rights_command, which undoes it."""

# The shell reads the variables from its standard input; the job gets /dev/null instead.
_START = 'ulimit -c 0; . /dev/stdin && exec "$@" </dev/null'


@dataclass(frozen=True, slots=True)
class JobLaunch:
    """A job's process, to be started. Its repr omits the secrets."""

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
    """Delivered files by their path below `JobPaths.files`."""
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Variables that name delivered files."""
    broker: Path | None = None
    """The broker's socket, as a path on this machine."""
    limits: ResourceLimits = field(default_factory=ResourceLimits)


@dataclass(frozen=True, slots=True)
class JobPaths:
    """Paths of a job's folders and broker, as the job sees them."""

    workdir: str = "/job"
    home: str = "/home/job"
    files: str = "/run/justenough"
    scratch: str = "/tmp"  # noqa: S108 - private, inside the sandbox
    broker: str = "/run/justenough/broker.sock"


@dataclass(frozen=True, slots=True)
class PreparedCommand:
    """How to start a job: a command line and the open files that it inherits. Contains no secret."""

    argv: tuple[str, ...]
    stdin: int
    pass_fds: tuple[int, ...] = ()
    cwd: str = "/"


def job_command(launch: JobLaunch) -> tuple[str, ...]:
    """Return the end of every command line: the shell that reads the variables, then the job's own command."""
    first, *rest = launch.argv
    return ("/bin/sh", "-c", _START, "sh", str(launch.interpreter.path) if first in PYTHON_NAMES else first, *rest)


def environment_script(launch: JobLaunch, job_paths: JobPaths) -> Secret:
    """Return the job's files and environment as shell statements. The variables that JustEnough sets override the spec's."""
    spec_env = {name: value.reveal() if isinstance(value, Secret) else value for name, value in launch.env.items()}
    room_env = {
        "PATH": f"{launch.interpreter.path.parent}:{SYSTEM_PATH}",
        "HOME": job_paths.home,
        "USER": "job",
        "LOGNAME": "job",
        "TMPDIR": job_paths.scratch,
        "PWD": job_paths.workdir,
        "JUSTENOUGH_JOB_ID": launch.job,
        "JUSTENOUGH_FILES": job_paths.files,
        **{name: ":".join(f"{job_paths.files}/{path}" for path in paths) for name, paths in launch.paths.items()},
        **({"JUSTENOUGH_BROKER": job_paths.broker} if launch.broker else {}),
    }
    # Unbuffered, so that Python's output reaches the log as it is printed, even if the process crashes.
    env = {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", **spec_env, **room_env}
    # The job's user writes the files, so that it owns them and only it can read them: libpq accepts no other password file.
    # If one cannot be written, the job does not start.
    files = [
        f"(umask 077; printf %s {shlex.quote(content.reveal())} >{shlex.quote(f'{job_paths.files}/{path}')}) || exit {NOT_STARTED_EXIT_CODE}\n"
        for path, content in launch.files.items()
    ]
    return Secret("".join((*files, *(f"export {name}={shlex.quote(value)}\n" for name, value in env.items()))))


def limits_command(limits: ResourceLimits, *, processes: int | None) -> tuple[str, ...]:
    """Return the command prefix that makes the kernel limit each process, and kill it first when memory runs out.

    `processes`: how many there may be; None if the kernel would count those of the worker, too.
    """
    seconds = limits.cpu + CPU_MARGIN_S
    bounds = {
        "core": (resource.RLIMIT_CORE, 0),
        "cpu": (resource.RLIMIT_CPU, seconds + CPU_KILL_GRACE_S),
        "data": (resource.RLIMIT_DATA, limits.memory * DATA_LIMIT_FACTOR),
        "fsize": (resource.RLIMIT_FSIZE, limits.file_size),
        "nofile": (resource.RLIMIT_NOFILE, limits.open_files),
        **({} if processes is None else {"nproc": (resource.RLIMIT_NPROC, processes)}),
    }
    hard = {}
    for name, (which, value) in bounds.items():
        own = resource.getrlimit(which)[1]
        # No process can raise the hard limit that it inherits from the worker.
        hard[name] = value if own == resource.RLIM_INFINITY else min(value, own)
    soft = {**hard, "cpu": min(seconds, hard["cpu"])}
    flags = (f"--{name}={soft[name]}:{hard[name]}" for name in bounds)
    return ("/usr/bin/choom", "-n", str(OOM_SCORE_ADJUST), "--", "/usr/bin/prlimit", *flags, "--")


def drop_rights_command(uid: int) -> tuple[str, ...]:
    """Return the command prefix that runs a program as a user without any rights."""
    user = ("--reuid", str(uid), "--regid", str(uid), "--clear-groups")
    return ("/usr/bin/setpriv", *user, "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all", "--")


@contextmanager
def open_memory_file(content: Secret | bytes) -> Iterator[int]:
    """Yield the handle of an unnamed in-memory file with this content, positioned at its start, for a child to inherit."""
    data = content if isinstance(content, bytes) else content.reveal().encode()

    def write(end: int) -> None:
        with os.fdopen(end, "wb") as file:
            file.write(data)

    has_memory_files = hasattr(os, "memfd_create")
    # macOS has no memfd. A thread feeds a pipe, because a pipe may hold less than the content.
    handle, end = (os.memfd_create("justenough"), -1) if has_memory_files else os.pipe()
    try:
        if has_memory_files:
            write(os.dup(handle))
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            threading.Thread(target=write, args=(end,), daemon=True).start()
        yield handle
    finally:
        os.close(handle)
