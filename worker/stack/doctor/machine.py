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
from worker.stack.finding import Finding
from worker.stack.paths import Places
from worker.stack.postgres_account import stage

OLDEST_PYTHON = (3, 11)
LEAST_FREE = 1 << 30
"""Bytes; Vault's audit device blocks every request, revocation too, once the disk is full."""
WITHOUT_SANDBOX = "or set JUSTENOUGH_SANDBOX=off and accept what SECURITY.md says of it"
BWRAP_PROBE = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid", "--die-with-parent", "true")
LIMITS_PROBE = ("--cpu=60", "--data=1073741824", "--fsize=1073741824", "--nofile=64", "--nproc=256", "choom", "-n", "1000", "--", "true")
SYS_PTRACE = 19
SETPRIV_PROBE = ("--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "true")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def python_findings(version: tuple[int, ...]) -> Iterator[Finding]:
    """Whether this Python is new enough."""
    text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        yield Finding("python", "missing", text, "Install Python 3.11 or newer and run make setup with it.")
    else:
        yield Finding("python", "ok", text)


def program_findings(programs: Programs) -> Iterator[Finding]:
    """Whether the embedded servers' programs are there."""
    for name, find in (("temporal", programs.temporal), ("openbao", programs.vault), ("postgresql", programs.postgres)):
        try:
            yield Finding(name, "ok", str(find()))
        except ProgramMissing as missing:
            yield Finding(name, "missing", str(missing), missing.remedy)


def sandbox_findings(programs: Programs, *, root: bool) -> Iterator[Finding]:
    """Whether jobs can be kept apart: bubblewrap and, as root, setpriv, each really run."""
    if root:
        yield Finding("user", "ok", "root: each job runs as an unprivileged user of its own")
    else:
        found = f"uid {os.geteuid()}: jobs run as this same user, kept apart by namespaces only"
        yield Finding("user", "warning", found, "To give each job a user of its own, run the worker as root.")
    yield _tried("bubblewrap", programs.optional("bwrap"), BWRAP_PROBE, install="apt install bubblewrap")
    if root:
        yield _tried("setpriv", programs.optional("setpriv"), SETPRIV_PROBE, install="apt install util-linux")
    yield limits_finding(_tried("limits", programs.optional("prlimit"), LIMITS_PROBE, install="apt install util-linux"), root=root)


def limits_finding(tried: Finding, *, root: bool) -> Finding:
    """How jobs are kept to their limits; `tried` is whether the kernel's own for each process can be set."""
    if tried.level != "ok":
        return tried
    if not process_tree.shows_children():
        lacks = "each process is limited, all of a job's together are not: this kernel does not list a process's children"
        return Finding("limits", "warning", lacks, "Use a kernel that is built with CONFIG_PROC_CHILDREN, as distributions' are.")
    if root and not _has_capability(SYS_PTRACE):
        lacks = "memory that a job's processes share counts for each of them, and files in its folders in memory do not count"
        return Finding("limits", "warning", lacks, "Give the worker the capability SYS_PTRACE.")
    return Finding("limits", "ok", "each process by the kernel (rlimits), all of a job's together as the worker adds them up; no cgroups")


def postgres_findings(programs: Programs, places: Places) -> Iterator[Finding]:
    """As whom PostgreSQL would run, and whether that user gets at program and data."""
    try:
        how = stage(programs, places.postgres if places.postgres.is_dir() else nearest(places.home))
    except ProgramMissing:
        return  # program_findings says it.
    except JustEnoughError as error:
        yield Finding("postgresql's user", "missing", str(error), "apt install bubblewrap util-linux")
        return
    through = ", through bubblewrap, which binds program and data where it may enter" if how.prefix else ""
    yield Finding("postgresql's user", "ok", f"{how.account.name if how.account else 'this user'}{through}")


def browser_findings(programs: Programs) -> Iterator[Finding]:
    """A browser, which only tests of the pages need."""
    found = next(filter(None, map(programs.optional, BROWSERS)), None)
    if found:
        yield Finding("chromium", "ok", str(found))
    else:
        yield Finding("chromium", "warning", "not on PATH; only tests of the pages need it", "apt install chromium")


def disk_findings(places: Places) -> Iterator[Finding]:
    """Whether there is room left."""
    free = shutil.disk_usage(nearest(places.home)).free
    text = f"{free / (1 << 30):.1f} GiB free for {places.home}"
    if free < LEAST_FREE:
        yield Finding(
            "disk", "missing", text, "Free at least 1 GiB: Vault answers nothing, revocations neither, once its audit log cannot grow."
        )
    else:
        yield Finding("disk", "ok", text)


def nearest(path: Path) -> Path:
    """The path itself or the nearest folder above it that exists."""
    return next(step for step in (path, *path.parents) if step.is_dir())


def _has_capability(number: int) -> bool:
    effective = re.search(r"^CapEff:\s+([0-9a-f]+)", Path("/proc/self/status").read_text(encoding="ascii", errors="replace"), re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> number & 1)


def _tried(what: str, program: Path | None, arguments: tuple[str, ...], *, install: str) -> Finding:
    if program is None:
        return Finding(what, "missing", "not on PATH; jobs are refused without it", f"{install}, {WITHOUT_SANDBOX}")
    try:
        done = subprocess.run((str(program), *arguments), capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding(what, "missing", f"{program} does not run: {error}", f"{install}, {WITHOUT_SANDBOX}")
    if done.returncode == 0:
        return Finding(what, "ok", f"{program} works")
    remedy = f"Allow namespaces (in a container: --privileged, or a seccomp profile that lets them through), {WITHOUT_SANDBOX}"
    return Finding(what, "missing", f"{program} is there but fails: {done.stderr.strip()}", remedy)
