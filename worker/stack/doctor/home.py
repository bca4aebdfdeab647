"""What the home and the stack in it lack: files that others may read, children that do not answer, a broken configuration. Changes nothing."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

from justenough.adapters.configuration.folder import check
from worker.stack import readyz
from worker.stack.finding import Finding
from worker.stack.lock import supervisor_of
from worker.stack.paths import Places
from worker.stack.stack_file import StackUnreadable
from worker.stack.status import ChildStatus, survey

RESTART = "justenough down, then justenough up --detach"


def mode_findings(places: Places) -> Iterator[Finding]:
    """Files that others than their owner may read."""
    folders = (places.home, places.run, places.logs, places.temporal, places.vault)
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir()) if file.is_file()]
    loose = [file for file in files if stat.S_IMODE(file.stat().st_mode) & 0o077]
    for file in loose:
        yield Finding("file modes", "missing", f"{file} can be read by others", f"chmod 600 {file}")
    if files and not loose:
        yield Finding("file modes", "ok", f"{len(files)} files, none of them readable by others")


def stack_findings(places: Places) -> Iterator[Finding]:
    """Whether the stack runs and each of its children answers."""
    try:
        seen = survey(places)
    except StackUnreadable as error:
        yield Finding("stack", "missing", str(error), RESTART)
        return
    if supervisor_of(places) is None and all(child.health == "down" for child in seen.children):
        yield Finding("stack", "warning", f"not running in {places.home}", "justenough up --detach")
        return
    if supervisor_of(places) is None:
        yield Finding("stack", "missing", f"its supervisor is gone; nobody restarts what dies in {places.home}", "justenough up --detach")
    yield from (_child(child, places) for child in seen.children)
    if seen.said:
        yield from readyz.findings(seen.said)


def configuration_findings(folder: Path) -> Iterator[Finding]:
    """Whether the configuration folder could be used as it is now: each problem by file and place."""
    problems = check(folder)
    if not problems:
        yield Finding("configuration", "ok", str(folder))
    for problem in problems:
        yield Finding(
            "configuration", "missing", f"{folder}: {problem}", "Mend it, or set JUSTENOUGH_CONFIG; look again: justenough catalog check"
        )


def _child(child: ChildStatus, places: Places) -> Finding:
    found = f"{child.health}, pid {child.pid} {child.address}".rstrip()
    if child.health == "healthy":
        return Finding(child.name, "ok", found)
    return Finding(child.name, "missing", found, f"Its log: {places.log(child.name)}. It is restarted by itself; if it is not: {RESTART}.")
