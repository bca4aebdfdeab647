"""Checks of this machine: Python, the servers' programs, the sandbox, the disk. Runs harmless probes, changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from activities.process import process_tree
from activities.process.job_firewall import FirewallMissing, JobFirewall
from activities.process.uid_pool import CLOSED_UIDS, MAX_UIDS
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import JustEnoughError
from worker.stack.binaries import ProgramMissing, Programs
from worker.stack.finding import DoctorFinding
from worker.stack.paths import StackPaths
from worker.stack.postgres_account import choose_launch

MIN_FREE_BYTES = 1 << 30
"""Once the disk is full, Vault's audit device blocks every request, including revocation."""
WITHOUT_SANDBOX_REMEDY = "or set JUSTENOUGH_SANDBOX=off and accept the risks in SECURITY.md"
BWRAP_PROBE = ("--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-pid", "--die-with-parent", "true")
LIMITS_PROBE = ("--cpu=60", "--data=1073741824", "--fsize=1073741824", "--nofile=64", "--nproc=256", "choom", "-n", "1000", "--", "true")
CAP_SYS_PTRACE = 19
SETPRIV_PROBE = ("--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs", "--bounding-set=-all", "true")
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
"""Browsers for the tests of the pages; the first one found is used. The headless shell needs 60% of the processor time of a whole browser."""


def program_findings(programs: Programs) -> Iterator[DoctorFinding]:
    for name, find in (("temporal", programs.temporal), ("openbao", programs.vault), ("postgresql", programs.postgres)):
        try:
            yield DoctorFinding(name, "ok", str(find()))
        except ProgramMissing as missing:
            yield DoctorFinding(name, "missing", str(missing), missing.remedy)


def sandbox_findings(programs: Programs, *, root: bool) -> Iterator[DoctorFinding]:
    """Check that jobs can be isolated: run bubblewrap and, as root, setpriv."""
    if root:
        yield DoctorFinding("user", "ok", "root: each job runs as a separate unprivileged user")
    else:
        found = f"uid {os.geteuid()}: all jobs run as this user, isolated by namespaces only"
        yield DoctorFinding("user", "warning", found, "To give each job a separate user, run the worker as root.")
    yield _probe("bubblewrap", programs.optional("bwrap"), BWRAP_PROBE, install="apt install bubblewrap")
    if root:
        yield _probe("setpriv", programs.optional("setpriv"), SETPRIV_PROBE, install="apt install util-linux")
    yield limits_finding(_probe("limits", programs.optional("prlimit"), LIMITS_PROBE, install="apt install util-linux"), root=root)


def firewall_finding(settings: Settings) -> DoctorFinding:
    """Check whether a worker here could keep jobs from Temporal and Vault."""
    try:
        JobFirewall(settings).apply(check=True)
    except FirewallMissing as error:
        remedy = f"{error.remedy} Or give jobs no network, or keep them from both by your own firewall (docs/how-to/lockout.md)."
        return DoctorFinding("firewall", "warning", f"jobs with `network: host` can reach Temporal and Vault: {error}", remedy)
    first = settings.job_uid_base
    found = f"a worker can keep the users {first} to {first + CLOSED_UIDS - 1} from Vault, and to {first + MAX_UIDS - 1} from Temporal"
    return DoctorFinding("firewall", "ok", found)


def limits_finding(probe: DoctorFinding, *, root: bool) -> DoctorFinding:
    """Return how the limits of jobs are enforced. `probe`: whether the kernel's limits per process can be set."""
    if probe.level != "ok":
        return probe
    if not process_tree.lists_children():
        text = "each process is limited, but not a job's processes together: this kernel does not list a process's children"
        return DoctorFinding("limits", "warning", text, "Use a kernel built with CONFIG_PROC_CHILDREN, as distribution kernels are.")
    status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace") if root else ""
    capabilities = re.search(r"^CapEff:\s+([0-9a-f]+)", status, re.MULTILINE)
    if root and not (capabilities and int(capabilities[1], 16) >> CAP_SYS_PTRACE & 1):
        text = "memory that a job's processes share counts for each of them, and files in a job's in-memory folders do not count"
        return DoctorFinding("limits", "warning", text, "Give the worker the capability SYS_PTRACE.")
    text = "the kernel limits each process (rlimits), and the worker limits the sum of a job's processes; no cgroups"
    return DoctorFinding("limits", "ok", text)


def postgres_findings(programs: Programs, paths: StackPaths) -> Iterator[DoctorFinding]:
    """Check which user PostgreSQL would run as, and whether that user can reach its program and data."""
    try:
        launch = choose_launch(programs, paths.postgres if paths.postgres.is_dir() else nearest_folder(paths.home))
    except ProgramMissing:
        return  # program_findings reports it.
    except JustEnoughError as error:
        yield DoctorFinding("postgresql's user", "missing", str(error), "apt install bubblewrap util-linux")
        return
    through = ", in bubblewrap, which gives this user access to its programs and data" if launch.prefix else ""
    yield DoctorFinding("postgresql's user", "ok", f"{launch.account.pw_name if launch.account else 'this user'}{through}")


def browser_findings(programs: Programs) -> Iterator[DoctorFinding]:
    browser = next(filter(None, map(programs.optional, BROWSERS)), None)
    missing = DoctorFinding("chromium", "warning", "not on PATH; only tests of the pages need it", "apt install chromium")
    yield DoctorFinding("chromium", "ok", str(browser)) if browser else missing


def disk_findings(paths: StackPaths) -> Iterator[DoctorFinding]:
    free = shutil.disk_usage(nearest_folder(paths.home)).free
    text = f"{free / (1 << 30):.1f} GiB free for {paths.home}"
    remedy = "Free at least 1 GiB: Vault refuses every request, revocations too, once its audit log cannot grow."
    yield DoctorFinding("disk", "missing", text, remedy) if free < MIN_FREE_BYTES else DoctorFinding("disk", "ok", text)


def nearest_folder(path: Path) -> Path:
    """Return the path itself if it is a folder, else the nearest parent that exists."""
    return next(step for step in (path, *path.parents) if step.is_dir())


def _probe(what: str, program: Path | None, arguments: tuple[str, ...], *, install: str) -> DoctorFinding:
    if program is None:
        return DoctorFinding(what, "missing", "not on PATH; jobs are refused without it", f"{install}, {WITHOUT_SANDBOX_REMEDY}")
    try:
        done = subprocess.run((str(program), *arguments), capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return DoctorFinding(what, "missing", f"{program} does not run: {error}", f"{install}, {WITHOUT_SANDBOX_REMEDY}")
    if done.returncode == 0:
        return DoctorFinding(what, "ok", f"{program} works")
    remedy = f"Allow namespaces (in a container: --privileged, or a seccomp profile that allows them), {WITHOUT_SANDBOX_REMEDY}"
    return DoctorFinding(what, "missing", f"{program} fails: {done.stderr.strip()}", remedy)
