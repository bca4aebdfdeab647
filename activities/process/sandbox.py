"""Whether and how this machine can isolate a job, and the command line for it. process.py starts it; bwrap_mounts.py has the mounts.

If the worker is root, bubblewrap prepares the mounts and switches to a separate user id; otherwise it uses a user namespace.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from shutil import which
from typing import Self

from activities.process import no_sandbox
from activities.process.bwrap_mounts import ROOM, account_files, bwrap_arguments
from activities.process.interpreters import Interpreter
from activities.process.launcher import (
    CLEAN_ENV,
    JobLaunch,
    PreparedCommand,
    Room,
    drop_rights_command,
    environment_script,
    job_command,
    limits_command,
    open_memory_file,
)
from activities.process.seccomp import build_filters
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import GiveUp

PROBE_TIMEOUT_S = 20
_INSTALL = "bubblewrap is not installed (no bwrap on PATH): apt-get install bubblewrap, or dnf install bubblewrap"
_REMEDY = (
    "run the worker as root, or let users make namespaces (sysctl kernel.unprivileged_userns_clone=1 and user.max_user_namespaces>0, on Ubuntu "
    "an AppArmor profile for bwrap, in a container CAP_SYS_ADMIN and an unmasked /proc), or accept jobs without a sandbox: JUSTENOUGH_SANDBOX=off"
)


class SandboxMissing(GiveUp):
    """Jobs cannot be isolated on this machine; the message says what to do."""


class Isolation(StrEnum):
    """How jobs are isolated from each other; shown in job, ledger and doctor."""

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

    @classmethod
    def probe(cls, settings: Settings) -> Self:
        """Return the sandbox of this machine after starting a program in it. Raises SandboxMissing. Blocks."""
        if settings.sandbox == "off":
            return cls(Isolation.OFF)
        program = which("bwrap")
        if program is None:
            raise SandboxMissing(f"{_INSTALL}; or accept jobs without a sandbox: JUSTENOUGH_SANDBOX=off")
        root = os.geteuid() == 0
        own = (settings.home, settings.worker_approle_file.parent, settings.console_approle_file.parent)
        sandbox = cls(
            Isolation.BUBBLEWRAP if root else Isolation.NAMESPACES,
            program,
            sized="--size BYTES" in _run_bwrap((program, "--help")).stdout,
            hidden=tuple(path.resolve() for path in own),
        )
        uid = settings.job_uid_base if root else os.geteuid()
        launch = JobLaunch("probe", ("id", "-u"), uid, Interpreter(Path("/usr/bin/python3"), ()), network="none")
        with sandbox.prepare(launch) as ready:
            done = _run_bwrap(ready.argv, stdin=ready.stdin, pass_fds=ready.pass_fds)
        if done.returncode != 0 or done.stdout.strip() != str(uid):
            output = done.stderr.strip()[:500] or f"its user is {done.stdout.strip()!r}"
            raise SandboxMissing(f"bubblewrap cannot isolate jobs here ({output}): {_REMEDY}")
        return sandbox

    @contextmanager
    def prepare(self, launch: JobLaunch, room: Room = ROOM, *, status: int | None = None) -> Iterator[PreparedCommand]:
        """Yield the command, with the files that it inherits held open until it is started. `status`: handle for bubblewrap's reports."""
        with ExitStack() as stack:
            stdin = stack.enter_context(open_memory_file(environment_script(launch, room)))
            if self.isolation is Isolation.OFF:
                yield PreparedCommand(no_sandbox.bare_command(launch), stdin, cwd=room.workdir)
                return
            files = {path: stack.enter_context(open_memory_file(text.encode())) for path, text in account_files(launch.uid).items()}
            reports = () if status is None else (status,)
            rules = tuple(stack.enter_context(open_memory_file(program)) for program in build_filters(platform.machine()))
            yield PreparedCommand(self.command(launch, files, status=status, rules=rules), stdin, (*files.values(), *reports, *rules))

    def command(
        self, launch: JobLaunch, files: Mapping[str, int], *, status: int | None = None, rules: tuple[int, ...] = ()
    ) -> tuple[str, ...]:
        """Return the complete command line of a sandboxed job, without secrets.

        `files`: open handle by path to write; `rules`: open handles of seccomp filters.
        """
        own_user = self.isolation is Isolation.BUBBLEWRAP
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
            *limits_command(launch.limits, own_user=own_user),
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
