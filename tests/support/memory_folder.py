"""Puts what the tests write into memory: their servers write much, and the kernel spends less time on memory than on a disk."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import psutil

MEMORY = Path("/dev/shm")
ROOM = 8 * 1024**3
"""Bytes that must be free. A container usually has less there, so that its memory limit is not reached."""
PREFIX = "je-run-"


def use_memory() -> Path | None:
    """Make a folder in memory the default for temporary files, also of child processes; return it, or None if there is no room.

    Removes the folders of earlier runs that were killed.
    """
    if not MEMORY.is_dir():
        return None
    for folder in MEMORY.glob(f"{PREFIX}*-*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
    if min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) < ROOM:
        return None
    made = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=MEMORY))
    # PostgreSQL's account must be able to pass through it.
    made.chmod(0o711)
    os.environ["TMPDIR"] = tempfile.tempdir = str(made)
    return made


@atexit.register
def _remove() -> None:
    """Remove this process's folder. Registered at import: multiprocessing, imported later, removes its own folder there first."""
    for folder in MEMORY.glob(f"{PREFIX}{os.getpid()}-*"):
        shutil.rmtree(folder, ignore_errors=True)
