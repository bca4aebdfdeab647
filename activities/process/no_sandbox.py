"""Runs a job without a sandbox, if the settings turn the sandbox off: with a private folder, limits and, if the worker is root, another user."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from activities.process import process_tree
from activities.process.job_command import DIE_WITH_PARENT_COMMAND, JobLaunch, JobPaths, drop_rights_command, job_command, limits_command

MEMORY_FOLDER = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a private folder in it
FOLDER_PREFIX = "justenough-room"
KILL_TIMEOUT_S = 5.0
"""Seconds to wait until killed processes are gone."""
_folder_locks: dict[str, int] = {}
"""This process's lock on the folder of each of its jobs. A dead worker's folders have none."""


def create_folders(launch: JobLaunch) -> JobPaths:
    """Create a private folder for a job and return the paths in it. Files and secrets are in memory if the system supports that.

    Raises OSError; then no folder is left.
    """
    root = make_locked_folder(launch.job)
    at = {name: str(root / name) for name in ("job", "home", "files", "tmp")}
    job_paths = JobPaths(at["job"], at["home"], at["files"], at["tmp"], broker=str(launch.broker or ""))
    try:
        if launch.workdir:
            shutil.copytree(launch.workdir, job_paths.workdir)
        for folder in (job_paths.workdir, job_paths.home, job_paths.files, job_paths.scratch):
            Path(folder).mkdir(exist_ok=True, mode=0o700)
        hand_over(root, launch.uid)
    except BaseException as error:
        clear_folder(root)
        if isinstance(error, shutil.Error):
            # It lists each file that was not copied, with its reason. The first reason says enough.
            raise OSError(0, error.args[0][0][2]) from error
        raise
    return job_paths


def clear(job_paths: JobPaths) -> None:
    """Remove the folder that `create_folders` created; do nothing for the paths of a sandbox. Blocks."""
    if job_paths != JobPaths():
        clear_folder(Path(job_paths.home).parent)


def clear_folder(root: Path) -> None:
    """Remove a folder that `make_locked_folder` created. Blocks."""
    shutil.rmtree(root, ignore_errors=True)
    if (lock := _folder_locks.pop(str(root), None)) is not None:
        os.close(lock)


def clear_leftovers() -> tuple[str, ...]:
    """Kill processes and remove folders that jobs of dead workers left on this machine; return the jobs' ids. Blocks.

    Without a sandbox only a job's first process dies with its worker; this kills the others.
    """
    cleared = []
    for root in _parent_folder().glob(f"{FOLDER_PREFIX}.*.*"):
        job = root.name.split(".")[1]
        try:
            lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            owner = os.fstat(lock).st_uid
            # Anybody can create a folder with this name; one that another user owns proves nothing about our jobs.
            if os.geteuid() not in {0, owner}:
                continue
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            belongs, end = process_tree.of_mark(f"JUSTENOUGH_JOB_ID={job}", uid=owner), time.monotonic() + KILL_TIMEOUT_S
            # A folder of root was not handed over to the job's user yet: no job ran in it, so there is nothing to kill.
            while owner and process_tree.signal_all(belongs, signal.SIGKILL) and time.monotonic() < end:
                time.sleep(0.01)
            shutil.rmtree(root, ignore_errors=True)
        except BlockingIOError:
            # The folder's worker is alive.
            continue
        finally:
            os.close(lock)
        cleared.append(job)
    return tuple(cleared)


def bare_command(launch: JobLaunch) -> tuple[str, ...]:
    """Return the complete command line of a job without a sandbox."""
    if sys.platform != "linux":
        return job_command(launch)
    root = os.geteuid() == 0
    return (
        *limits_command(launch.limits, processes=launch.limits.processes if root else None),
        *(drop_rights_command(launch.uid) if root else ()),
        *DIE_WITH_PARENT_COMMAND,
        *job_command(launch),
    )


def _parent_folder() -> Path:
    return MEMORY_FOLDER if MEMORY_FOLDER.is_dir() else Path(tempfile.gettempdir())


def make_locked_folder(job: str) -> Path:
    """Create and return a private folder. Lock it before renaming it to the name by which `clear_leftovers` finds it."""
    made = Path(tempfile.mkdtemp(prefix=f".{FOLDER_PREFIX}-", dir=_parent_folder()))
    root = made.with_name(f"{FOLDER_PREFIX}.{job}.{made.name.rpartition('-')[2]}")
    try:
        lock = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        made.rmdir()
        raise
    fcntl.flock(lock, fcntl.LOCK_EX)
    made.rename(root)
    _folder_locks[str(root)] = lock
    return root


def hand_over(root: Path, uid: int) -> None:
    """Make a job's user the owner of a folder and everything in it, if the worker is root."""
    if os.geteuid() == 0:
        for path in (root, *root.rglob("*")):
            os.chown(path, uid, uid, follow_symlinks=False)
