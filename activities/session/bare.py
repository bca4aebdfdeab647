"""Running a job without a sandbox, where the settings say so: a private folder, no core dumps, another user where we are root. No more."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from activities.session.launch import Launch, Room, started, without_rights

MEMORY = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it


def furnish(launch: Launch) -> Room:
    """Make a private folder with the job's places and return them. Its files, secrets too, are in memory where the system offers that."""
    root = Path(tempfile.mkdtemp(prefix="justenough-", dir=MEMORY if MEMORY.is_dir() else None))
    room = Room(*(str(root / name) for name in ("job", "home", "files", "tmp")))
    if launch.workdir:
        shutil.copytree(launch.workdir, room.workdir)
    for folder in (room.workdir, room.home, room.files, room.scratch):
        Path(folder).mkdir(exist_ok=True, mode=0o700)
    for path, content in launch.files.items():
        (Path(room.files) / path).write_text(content.reveal(), "utf-8")
    _hand_over(root, launch.uid)
    return room


def clear(room: Room) -> None:
    """Remove what `furnish` made, and nothing else. Blocks."""
    if room != Room():
        shutil.rmtree(Path(room.home).parent, ignore_errors=True)


def bare_command(launch: Launch) -> tuple[str, ...]:
    """Return the whole command line."""
    return (*(without_rights(launch.uid) if os.geteuid() == 0 and sys.platform == "linux" else ()), *started(launch))


def _hand_over(root: Path, uid: int) -> None:
    if os.geteuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
