"""What the home and the stack in it lack: files that others may read, children that do not answer, a broken configuration. Changes nothing."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from justenough.adapters.configuration.folder import check_config_folder
from worker.stack import readyz
from worker.stack.finding import DoctorFinding
from worker.stack.lock import supervisor_of
from worker.stack.paths import StackPaths
from worker.stack.stack_file import StackUnreadable
from worker.stack.status import ChildStatus, check_status

RESTART_REMEDY = "justenough down, then justenough up --detach"


def mode_findings(places: StackPaths) -> Iterator[DoctorFinding]:
    """Files that others than their owner may read."""
    folders = (places.home, places.run, places.logs, places.temporal, places.vault)
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if file.is_file()]
    loose = [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077]
    for file in loose:
        yield DoctorFinding("file modes", "missing", f"{file} can be read by others", f"chmod 600 {file}")
    if files and not loose:
        yield DoctorFinding("file modes", "ok", f"{len(files)} files, none of them readable by others")


def stack_findings(places: StackPaths) -> Iterator[DoctorFinding]:
    """Whether the stack runs and each of its children answers."""
    try:
        seen = check_status(places)
    except StackUnreadable as error:
        yield DoctorFinding("stack", "missing", str(error), RESTART_REMEDY)
        return
    if supervisor_of(places) is None and all(child.health == "down" for child in seen.children):
        yield DoctorFinding("stack", "warning", f"not running in {places.home}", "justenough up --detach")
        return
    if supervisor_of(places) is None:
        yield DoctorFinding(
            "stack", "missing", f"its supervisor is gone; nobody restarts what dies in {places.home}", "justenough up --detach"
        )
    yield from (_child_finding(child, places) for child in seen.children)
    if seen.console_report:
        yield from readyz.findings(seen.console_report)


def configuration_findings(folder: Path) -> Iterator[DoctorFinding]:
    """Whether the configuration folder could be used as it is now: each problem by file and place."""
    problems = check_config_folder(folder)
    if not problems:
        yield DoctorFinding("configuration", "ok", str(folder))
    for problem in problems:
        yield DoctorFinding(
            "configuration", "missing", f"{folder}: {problem}", "Mend it, or set JUSTENOUGH_CONFIG; look again: justenough catalog check"
        )


def _child_finding(child: ChildStatus, places: StackPaths) -> DoctorFinding:
    found = f"{child.health}, pid {child.pid} {child.address}".rstrip()
    if child.health == "healthy":
        return DoctorFinding(child.name, "ok", found)
    return DoctorFinding(
        child.name, "missing", found, f"Its log: {places.log(child.name)}. It is restarted by itself; if it is not: {RESTART_REMEDY}."
    )
