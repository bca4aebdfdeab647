"""What this machine has and lacks: Python, the servers' programs, the sandbox, disk. Runs harmless probes, changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from activities.process import process_tree
from justenough.domain.core.errors import JustEnoughError
from worker.stack.binaries import ProgramMissing, Programs
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths
from worker.stack.postgres_account import choose_launch

MIN_PYTHON = (3, 11)
MIN_FREE_BYTES = 1 << 30
"""Bytes; Vault's audit device blocks every request, revocation too, once the disk is full."""
WITHOUT_SANDBOX_REMEDY = "or set JUSTENOUGH_SANDBOX=off and accept what SECURITY.md says of it"
BWRAP_PROBE = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid", "--die-with-parent", "true")
LIMITS_PROBE = ("--cpu=60", "--data=1073741824", "--fsize=1073741824", "--nofile=64", "--nproc=256", "choom", "-n", "1000", "--", "true")
CAP_SYS_PTRACE = 19
SETPRIV_PROBE = ("--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "true")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def python_findings(version: tuple[int, ...]) -> Iterator[DoctorFinding]:
    """Whether this Python is new enough."""
    text = ".".join(map(str, version))
    if version < MIN_PYTHON:
        yield DoctorFinding("python", "missing", text, "Install Python 3.11 or newer and run make setup with it.")
    else:
        yield DoctorFinding("python", "ok", text)


def program_findings(programs: Programs) -> Iterator[DoctorFinding]:
    """Whether the embedded servers' programs are there."""
    for name, find in (("temporal", programs.temporal), ("openbao", programs.vault), ("postgresql", programs.postgres)):
        try:
            yield DoctorFinding(name, "ok", str(find()))
        except ProgramMissing as missing:
            yield DoctorFinding(name, "missing", str(missing), missing.remedy)


def sandbox_findings(programs: Programs, *, root: bool) -> Iterator[DoctorFinding]:
    """Whether jobs can be kept apart: bubblewrap and, as root, setpriv, each really run."""
    if root:
        yield DoctorFinding("user", "ok", "root: each job runs as an unprivileged user of its own")
    else:
        found = f"uid {os.geteuid()}: jobs run as this same user, kept apart by namespaces only"
        yield DoctorFinding("user", "warning", found, "To give each job a user of its own, run the worker as root.")
    yield _probe("bubblewrap", programs.optional("bwrap"), BWRAP_PROBE, install="apt install bubblewrap")
    if root:
        yield _probe("setpriv", programs.optional("setpriv"), SETPRIV_PROBE, install="apt install util-linux")
    yield limits_finding(_probe("limits", programs.optional("prlimit"), LIMITS_PROBE, install="apt install util-linux"), root=root)


def limits_finding(probe: DoctorFinding, *, root: bool) -> DoctorFinding:
    """How jobs are kept to their limits; `probe` is whether the kernel's own for each process can be set."""
    if probe.level != "ok":
        return probe
    if not process_tree.lists_children():
        lacks = "each process is limited, all of a job's together are not: this kernel does not list a process's children"
        return DoctorFinding("limits", "warning", lacks, "Use a kernel that is built with CONFIG_PROC_CHILDREN, as distributions' are.")
    if root and not _has_capability(CAP_SYS_PTRACE):
        lacks = "memory that a job's processes share counts for each of them, and files in its folders in memory do not count"
        return DoctorFinding("limits", "warning", lacks, "Give the worker the capability SYS_PTRACE.")
    return DoctorFinding(
        "limits", "ok", "each process by the kernel (rlimits), all of a job's together as the worker adds them up; no cgroups"
    )


def postgres_findings(programs: Programs, places: StackPaths) -> Iterator[DoctorFinding]:
    """As whom PostgreSQL would run, and whether that user gets at program and data."""
    try:
        how = choose_launch(programs, places.postgres if places.postgres.is_dir() else nearest_folder(places.home))
    except ProgramMissing:
        return  # program_findings says it.
    except JustEnoughError as error:
        yield DoctorFinding("postgresql's user", "missing", str(error), "apt install bubblewrap util-linux")
        return
    through = ", through bubblewrap, which binds program and data where it may enter" if how.prefix else ""
    yield DoctorFinding("postgresql's user", "ok", f"{how.account.name if how.account else 'this user'}{through}")


def browser_findings(programs: Programs) -> Iterator[DoctorFinding]:
    """A browser, which only tests of the pages need."""
    found = next(filter(None, map(programs.optional, BROWSERS)), None)
    if found:
        yield DoctorFinding("chromium", "ok", str(found))
    else:
        yield DoctorFinding("chromium", "warning", "not on PATH; only tests of the pages need it", "apt install chromium")


def disk_findings(places: StackPaths) -> Iterator[DoctorFinding]:
    """Whether there is room left."""
    free = shutil.disk_usage(nearest_folder(places.home)).free
    text = f"{free / (1 << 30):.1f} GiB free for {places.home}"
    if free < MIN_FREE_BYTES:
        yield DoctorFinding(
            "disk", "missing", text, "Free at least 1 GiB: Vault answers nothing, revocations neither, once its audit log cannot grow."
        )
    else:
        yield DoctorFinding("disk", "ok", text)


def nearest_folder(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists."""
    return next(step for step in (path, *path.parents) if step.is_dir())


def _has_capability(number: int) -> bool:
    effective = re.search(r"^CapEff:\s+([0-9a-f]+)", Path("/proc/self/status").read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> number & 1)


def _probe(what: str, program: Path | None, arguments: tuple[str, ...], *, install: str) -> DoctorFinding:
    if program is None:
        return DoctorFinding(what, "missing", "not on PATH; jobs are refused without it", f"{install}, {WITHOUT_SANDBOX_REMEDY}")
    try:
        done = subprocess.run((str(program), *arguments), capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return DoctorFinding(what, "missing", f"{program} does not run: {error}", f"{install}, {WITHOUT_SANDBOX_REMEDY}")
    if done.returncode == 0:
        return DoctorFinding(what, "ok", f"{program} works")
    remedy = f"Allow namespaces (in a container: --privileged, or a seccomp profile that lets them through), {WITHOUT_SANDBOX_REMEDY}"
    return DoctorFinding(what, "missing", f"{program} is there but fails: {done.stderr.strip()}", remedy)
