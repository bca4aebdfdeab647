"""Running a job without a sandbox, where the settings say so: a private folder, limits, another user where we are root. No more."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from activities.process import process_tree
from activities.process.launcher import JobLaunch, Room, die_with_parent_command, drop_rights_command, job_command, limits_command

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
FOLDER_PREFIX = "justenough-room"
KILL_TIMEOUT_S = 5.0
"""Seconds in which what was killed must be gone."""
_folder_locks: dict[str, int] = {}
"""A lock on each room of this process: it tells a room in use from one whose worker has died."""


def furnish(launch: JobLaunch) -> Room:
    """Make a private folder with the job's places and return them. Its files, secrets too, are in memory where the system offers that."""
    root = make_locked_folder(launch.job)
    at = {name: str(root / name) for name in ("job", "home", "files", "tmp")}
    room = Room(at["job"], at["home"], at["files"], at["tmp"], broker=str(launch.broker or ""))
    if launch.workdir:
        shutil.copytree(launch.workdir, room.workdir)
    for folder in (room.workdir, room.home, room.files, room.scratch):
        Path(folder).mkdir(exist_ok=True, mode=0o700)
    hand_over(root, launch.uid)
    return room


def clear(room: Room) -> None:
    """Remove what `furnish` made, and nothing else. Blocks."""
    if room != Room():
        clear_folder(Path(room.home).parent)


def clear_folder(root: Path) -> None:
    """Remove a folder that `make_locked_folder` made. Blocks."""
    shutil.rmtree(root, ignore_errors=True)
    if (lock := _folder_locks.pop(str(root), None)) is not None:
        os.close(lock)


def clear_leftovers() -> tuple[str, ...]:
    """End what jobs of dead workers left on this machine, processes and folders; return their ids. Blocks.

    Nothing binds all of a job's processes to its worker without a sandbox: the first one dies with it, the others here.
    """
    return tuple(job for root, job in _rooms() if _clear_leftover(root, job))


def bare_command(launch: JobLaunch) -> tuple[str, ...]:
    """Return the whole command line."""
    if sys.platform != "linux":
        return job_command(launch)
    root = os.geteuid() == 0
    return (
        *limits_command(launch.limits, own_user=root),
        *(drop_rights_command(launch.uid) if root else ()),
        *die_with_parent_command(),
        *job_command(launch),
    )


def _folder() -> Path:
    return MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else Path(tempfile.gettempdir())


def make_locked_folder(job: str) -> Path:
    """Make a private folder that is locked before it has the name by which leftovers are found."""
    made = Path(tempfile.mkdtemp(prefix=f".{FOLDER_PREFIX}-", dir=_folder()))
    root = made.with_name(f"{FOLDER_PREFIX}.{job}.{made.name.rpartition('-')[2]}")
    lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(lock, fcntl.LOCK_EX)
    made.rename(root)
    _folder_locks[str(root)] = lock
    return root


def _rooms() -> Iterator[tuple[Path, str]]:
    for root in _folder().glob(f"{FOLDER_PREFIX}.*.*"):
        yield root, root.name.split(".")[1]


def _clear_leftover(root: Path, job: str) -> bool:
    try:
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        owner = os.fstat(lock).st_uid
        # A folder of this name that somebody else made says nothing about a job of ours.
        if owner == 0 or os.geteuid() not in {0, owner}:
            return False
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _kill_all(process_tree.of_mark(f"JUSTENOUGH_JOB_ID={job}", uid=owner))
        shutil.rmtree(root, ignore_errors=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True


def _kill_all(belongs: process_tree.Belongs) -> None:
    end = time.monotonic() + KILL_TIMEOUT_S
    while process_tree.signal_all(belongs, signal.SIGKILL) and time.monotonic() < end:
        time.sleep(0.01)


def hand_over(root: Path, uid: int) -> None:
    """Make a folder, and all that is in it, a job's own."""
    if os.geteuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
