"""Whether and how this machine can isolate a job, and the command line that does. Starting it is process.py's, the layout layout.py's.

As root, bubblewrap prepares the room and hands over to a user id of the job's own; elsewhere a user namespace does.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
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
from justenough.domain.core.secret import Secret

PROBE_TIMEOUT_S = 20
_INSTALL = "bubblewrap is not installed (no bwrap on PATH): apt-get install bubblewrap, or dnf install bubblewrap"
_REMEDY = (
    "run the worker as root, or let users make namespaces (sysctl kernel.unprivileged_userns_clone=1 and user.max_user_namespaces>0, on Ubuntu "
    "an AppArmor profile for bwrap, in a container CAP_SYS_ADMIN and an unmasked /proc), or accept jobs without a sandbox: JUSTENOUGH_SANDBOX=off"
)


class SandboxMissing(GiveUp):
    """Jobs cannot be isolated on this machine; the message holds the remedy."""


class Isolation(StrEnum):
    """How jobs are kept apart; job, ledger and doctor show it."""

    BUBBLEWRAP = "bubblewrap"
    """By bubblewrap, each under a user id of its own: the worker is root."""
    NAMESPACES = "namespaces"
    """By bubblewrap under the worker's own user id: namespaces alone keep them apart."""
    OFF = "off"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What was found out about this machine, once."""

    isolation: Isolation
    program: str = ""
    sized: bool = False
    """Whether this bubblewrap can limit the size of folders in memory."""
    hidden: tuple[Path, ...] = ()
    """The worker's own folders, should they lie inside something that jobs can read."""

    @classmethod
    def probe(cls, settings: Settings) -> Self:
        """Return the sandbox of this machine after really starting something in it; raise SandboxMissing. Blocks."""
        if settings.sandbox == "off":
            return cls(Isolation.OFF)
        program = which("bwrap")
        if program is None:
            raise SandboxMissing(f"{_INSTALL}; or accept jobs without a sandbox: JUSTENOUGH_SANDBOX=off")
        root = os.geteuid() == 0
        own = (settings.home, settings.worker_approle_file.parent, settings.console_approle_file.parent)
        found = cls(
            Isolation.BUBBLEWRAP if root else Isolation.NAMESPACES,
            program,
            sized="--size BYTES" in _run_bwrap((program, "--help")).stdout,
            hidden=tuple(path.resolve() for path in own),
        )
        found._try_out(settings.job_uid_base if root else os.geteuid())
        return found

    @contextmanager
    def prepare(self, launch: JobLaunch, room: Room = ROOM, *, status: int | None = None) -> Iterator[PreparedCommand]:
        """Hold open what the process inherits, until it is started. `status` is where bubblewrap reports what it started."""
        with ExitStack() as stack:
            stdin = stack.enter_context(open_memory_file(environment_script(launch, room)))
            if self.isolation is Isolation.OFF:
                yield PreparedCommand(no_sandbox.bare_command(launch), stdin, cwd=room.workdir)
                return
            contents = {path: Secret(text) for path, text in account_files(launch.uid).items()}
            files = {path: stack.enter_context(open_memory_file(content)) for path, content in contents.items()}
            told = () if status is None else (status,)
            rules = tuple(stack.enter_context(open_memory_file(filtered)) for filtered in build_filters(platform.machine()))
            yield PreparedCommand(self.command(launch, files, status=status, rules=rules), stdin, (*files.values(), *told, *rules))

    def command(
        self, launch: JobLaunch, files: Mapping[str, int], *, status: int | None = None, rules: tuple[int, ...] = ()
    ) -> tuple[str, ...]:
        """Return the whole command line of a sandboxed job. Holds no secret.

        `files` gives the open handle of each file to write, `rules` those of what it may not ask the kernel for.
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

    def _try_out(self, uid: int) -> None:
        launch = JobLaunch("probe", ("id", "-u"), uid, Interpreter(Path("/usr/bin/python3"), ()), network="none")
        with self.prepare(launch) as ready:
            done = _run_bwrap(ready.argv, stdin=ready.stdin, pass_fds=ready.pass_fds)
        if done.returncode != 0 or done.stdout.strip() != str(uid):
            said = done.stderr.strip()[:500] or f"user {done.stdout.strip()!r} came out"
            raise SandboxMissing(f"bubblewrap cannot isolate jobs here ({said}): {_REMEDY}")


def _run_bwrap(
    argv: tuple[str, ...], *, stdin: int = subprocess.DEVNULL, pass_fds: tuple[int, ...] = ()
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            argv,
            stdin=stdin,
            pass_fds=pass_fds,
            env=CLEAN_ENV,
            cwd="/",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxMissing(f"bubblewrap does not run ({error}): {_REMEDY}") from error
