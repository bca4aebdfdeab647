"""The sandbox: whether and how this machine can isolate a job, the file system that the job sees, and its command line. process.py starts it.

If the worker is root, bubblewrap prepares the mounts and switches to a separate user id; otherwise it uses a user namespace. The mounts are an
allow-list: a path that is not listed here does not exist for the job.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from shutil import which
from typing import Self

from activities.process import no_sandbox, uid_pool
from activities.process.interpreters import SYSTEM_PREFIX, Interpreter
from activities.process.job_command import (
    CLEAN_ENV,
    JobLaunch,
    JobPaths,
    PreparedCommand,
    drop_rights_command,
    environment_script,
    job_command,
    limits_command,
    open_memory_file,
)
from activities.process.seccomp import build_filters
from justenough.adapters.configuration.settings import Settings
from justenough.adapters.vault.own_login import secret_files
from justenough.domain.core.errors import GiveUp
from justenough.domain.jobs.spec import ResourceLimits

ETC_NAMES = (
    *("alternatives", "ca-certificates", "crypto-policies", "gai.conf", "host.conf", "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d"),
    *("localtime", "mime.types", "nsswitch.conf", "pki/ca-trust/extracted", "pki/tls/certs", "protocols", "resolv.conf", "services"),
    *("ssl/certs", "ssl/openssl.cnf", "timezone"),
)
"""The names in /etc that name lookups, TLS, time zones and the dynamic linker need; names that the host lacks are skipped."""
SANDBOX_PATHS = JobPaths()
VAR_TMP = Path("/var/tmp")  # noqa: S108 - inside the sandbox
"""Becomes a link to the scratch folder, unless an interpreter is installed below it."""
SCRATCH_FRACTIONS = {SANDBOX_PATHS.scratch: 2, SANDBOX_PATHS.home: 4, "/dev/shm": 4, SANDBOX_PATHS.files: 16}  # noqa: S108 - private, inside the sandbox
"""The writable folders, all in memory. Each may fill 1/n of the job's memory: 1/2, 1/4, 1/4, 1/16."""
PROBE_TIMEOUT_S = 20
_INSTALL = "bubblewrap is not installed (no bwrap on PATH): apt-get install bubblewrap, or dnf install bubblewrap"
_REMEDY = (
    "run the worker as root, or allow users to create namespaces (sysctl kernel.unprivileged_userns_clone=1 and user.max_user_namespaces>0, "
    "on Ubuntu an AppArmor profile for bwrap, in a container CAP_SYS_ADMIN and an unmasked /proc), "
    "or accept jobs without a sandbox: JUSTENOUGH_SANDBOX=off"
)


class SandboxMissing(GiveUp):
    """Jobs cannot be isolated on this machine; the message names the remedy."""


class Isolation(StrEnum):
    """The ways to isolate jobs from each other; shown in job, ledger and doctor."""

    BUBBLEWRAP = "bubblewrap"
    """bubblewrap and a separate user id for each job; the worker is root."""
    NAMESPACES = "namespaces"
    """bubblewrap under the worker's own user id; only namespaces isolate jobs."""
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How this machine isolates jobs; determined once."""

    isolation: Isolation
    program: str = ""
    sized: bool = False
    """Whether this bubblewrap can limit the size of in-memory folders."""
    hidden: tuple[Path, ...] = ()
    """The worker's own folders, to be hidden if jobs could read them."""
    counts_processes: bool = True
    """Whether the kernel counts a job's processes without those of others: by its user, or since Linux 5.14 by its user namespace."""

    @classmethod
    def probe(cls, settings: Settings) -> Self:
        """Return the sandbox of this machine after starting a program in it. Raises SandboxMissing, NoFreeUid. Blocks."""
        if settings.sandbox == "off":
            return cls(Isolation.OFF)
        program = which("bwrap")
        if program is None:
            raise SandboxMissing(f"{_INSTALL}; or accept jobs without a sandbox: JUSTENOUGH_SANDBOX=off")
        root = os.geteuid() == 0
        logins = (*secret_files(settings.worker_approle_file), *secret_files(settings.console_approle_file))
        own = dict.fromkeys((settings.home, *(file.parent for file in logins)))
        counting = cls(
            Isolation.BUBBLEWRAP if root else Isolation.NAMESPACES,
            program,
            sized="--size BYTES" in _run_bwrap((program, "--help")).stdout,
            hidden=tuple(path.resolve() for path in own),
        )
        if not counting.why_unfit(settings):
            return counting
        sandbox = replace(counting, counts_processes=False)
        if why := sandbox.why_unfit(settings):
            raise SandboxMissing(f"bubblewrap cannot isolate jobs here ({why}): {_REMEDY}")
        return sandbox

    def why_unfit(self, settings: Settings) -> str:
        """Return why a program does not run in this sandbox; empty if one did. Raises SandboxMissing, NoFreeUid. Blocks."""
        # A shell and a child of it. If the kernel counted the worker and bubblewrap too, they would be too many.
        command, limits = ("sh", "-c", "id -u; exit"), ResourceLimits(processes=2)
        # Lend a user id as for a job: ending another job kills every process of that job's user.
        with uid_pool.lend_uid(settings) as uid:
            launch = JobLaunch("probe", command, uid, Interpreter(Path("/usr/bin/python3"), ()), network="none", limits=limits)
            with self.prepare(launch) as ready:
                done = _run_bwrap(ready.argv, stdin=ready.stdin, pass_fds=ready.pass_fds)
        if done.returncode == 0 and done.stdout.strip() == str(uid):
            return ""
        return done.stderr.strip()[:500] or f"exit code {done.returncode}, its user is {done.stdout.strip()!r}"

    @contextmanager
    def prepare(self, launch: JobLaunch, job_paths: JobPaths = SANDBOX_PATHS, *, status: int | None = None) -> Iterator[PreparedCommand]:
        """Yield the command, with the files that it inherits held open until it is started. `status`: handle for bubblewrap's reports."""
        with ExitStack() as stack:
            stdin = stack.enter_context(open_memory_file(environment_script(launch, job_paths)))
            if self.isolation is Isolation.OFF:
                yield PreparedCommand(no_sandbox.bare_command(launch), stdin, cwd=job_paths.workdir)
                return
            files = {path: stack.enter_context(open_memory_file(text.encode())) for path, text in account_files(launch.uid).items()}
            reports = () if status is None else (status,)
            rules = tuple(stack.enter_context(open_memory_file(program)) for program in build_filters(platform.machine()))
            yield PreparedCommand(self.command(launch, files, status=status, rules=rules), stdin, (*files.values(), *reports, *rules))

    def command(
        self, launch: JobLaunch, files: Mapping[str, int], *, status: int | None = None, rules: tuple[int, ...] = ()
    ) -> tuple[str, ...]:
        """Return the complete command line of a sandboxed job, without secrets.

        `files`: for each path to write, the open handle of its content; `rules`: open handles of seccomp filters.
        """
        own_user = self.isolation is Isolation.BUBBLEWRAP
        # The first process of a user namespace is bubblewrap's own, and counts as one of its user.
        processes = launch.limits.processes if own_user else launch.limits.processes + 1
        return (
            self.program,
            *("--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try", "--hostname", "job"),
            *("--die-with-parent", "--new-session"),
            *(() if own_user else ("--unshare-user",)),
            *(("--unshare-net",) if launch.network == "none" else ()),
            *(() if status is None else ("--json-status-fd", str(status))),
            *(part for handle in rules for part in ("--add-seccomp-fd", str(handle))),
            *bwrap_arguments(launch, files, sized=self.sized, hidden=self.hidden),
            "--",
            *limits_command(launch.limits, processes=processes if self.counts_processes else None),
            *(drop_rights_command(launch.uid) if own_user else ()),
            *job_command(launch),
        )


def _run_bwrap(
    argv: tuple[str, ...], *, stdin: int = subprocess.DEVNULL, pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    run = partial(subprocess.run, env=CLEAN_ENV, cwd="/", capture_output=True, text=True, errors="replace", timeout=PROBE_TIMEOUT_S)
    try:
        return run(argv, stdin=stdin, pass_fds=pass_fds, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxMissing(f"bubblewrap does not run ({error}): {_REMEDY}") from error


def account_files(uid: int) -> dict[str, str]:
    """Return passwd and group files that name the job's user, because libraries look it up."""
    return {
        "/etc/passwd": f"root:x:0:0:root:/:/usr/sbin/nologin\njob:x:{uid}:{uid}:job:{SANDBOX_PATHS.home}:/bin/sh\n",
        "/etc/group": f"root:x:0:\njob:x:{uid}:\n",
    }


def bwrap_arguments(launch: JobLaunch, files: Mapping[str, int], *, sized: bool, hidden: tuple[Path, ...]) -> Iterator[str]:
    """Yield bubblewrap's arguments.

    `files`: for each path to write, the open handle of its content; `hidden`: folders to cover inside the visible trees.
    """
    yield from ("--ro-bind", "/usr", "/usr", *_links(), "--proc", "/proc", "--dev", "/dev")
    for scratch, part in SCRATCH_FRACTIONS.items():
        # World-writable: the job's user is the only one here, and root's bubblewrap cannot make it the owner.
        yield from ("--perms", "1777", *(("--size", str(launch.limits.memory // part)) if sized else ()), "--tmpfs", scratch)
    etc = [path for path in (Path("/etc", name) for name in ETC_NAMES) if path.exists()]
    # bubblewrap creates the parents of a mount for its own user only, so create them first, readable by all.
    mounts = (*etc, *launch.interpreter.prefixes, VAR_TMP)
    for folder in dict.fromkeys(folder for path in mounts for folder in reversed(path.parents) if folder != Path("/")):
        yield from ("--dir", str(folder))
    if not any(prefix.is_relative_to(VAR_TMP) for prefix in launch.interpreter.prefixes):
        yield from ("--symlink", SANDBOX_PATHS.scratch, str(VAR_TMP))
    for path in etc:
        yield from ("--ro-bind", str(path), str(path))
    for prefix in launch.interpreter.prefixes:
        yield from ("--ro-bind", str(prefix), str(prefix))
    # A tree that the job sees by a symbolic link is mounted at the link's path.
    trees = {tree: tree.resolve() for tree in (SYSTEM_PREFIX, *launch.interpreter.prefixes)}
    covers = {
        tree / path.relative_to(real) for tree, real in trees.items() for path in hidden if path.is_dir() and path.is_relative_to(real)
    }
    # Inside a covered folder is none that could be covered.
    for path in sorted(cover for cover in covers if covers.isdisjoint(cover.parents)):
        yield from ("--tmpfs", str(path), "--remount-ro", str(path))
    # In a user namespace the job owns /dev, which is an unbounded folder in memory.
    yield from ("--remount-ro", "/dev")
    yield from ("--ro-bind", str(launch.workdir), SANDBOX_PATHS.workdir) if launch.workdir else ("--dir", SANDBOX_PATHS.workdir)
    for name, handle in files.items():
        yield from ("--perms", "0444", "--file", str(handle), name)
    if launch.broker:
        yield from ("--bind", str(launch.broker), SANDBOX_PATHS.broker)
    yield from ("--remount-ro", "/", "--chdir", SANDBOX_PATHS.workdir)


def _links() -> Iterator[str]:
    """Yield the arguments for /bin and similar, as on the host: links into /usr, or folders."""
    for path in map(Path, ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")):
        if path.is_symlink():
            yield from ("--symlink", str(path.readlink()), str(path))
        elif path.is_dir():
            yield from ("--ro-bind", str(path), str(path))
