"""Lends each running job a user id of its own, never one that anything on this machine still runs as. Only root can lend.

What a dead worker's job still runs is ended: its id was nobody's when it was lent, and is marked as lent, and nobody holds its lock.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from activities.process import process_tree
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import RetryLater

MAX_UIDS = 4096
LOCK_FOLDER = Path("/run/justenough/uids")
"""One file per id, locked while it is lent: by whichever worker on this machine. It says since which boot of the machine."""
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
KILL_TIMEOUT_S = 5.0
"""Seconds in which what was killed must be gone."""


class NoFreeUid(RetryLater):
    """Every user id for jobs is taken."""


@contextmanager
def lend_uid(settings: Settings) -> Iterator[int]:
    """Lend a user id until the block ends; without root it is the worker's own. Raises NoFreeUid."""
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    folder = _lock_folder(settings)
    lock, uid = _lock_free_uid(folder, settings.job_uid_base)
    try:
        os.pwrite(lock, _boot_id(), 0)
        yield uid
        os.ftruncate(lock, 0)
    finally:
        # Closing gives the lock back; the file stays, for unlinking would race with the next one.
        os.close(lock)


def end_leftovers(settings: Settings) -> tuple[int, ...]:
    """End what jobs of dead workers still run on this machine; return the user ids. Without root nobody can tell: none. Blocks."""
    if os.geteuid() != 0:
        return ()
    folder, base = _lock_folder(settings), settings.job_uid_base
    lent = [int(file.name) for file in folder.iterdir() if file.name.isdigit() and file.stat().st_size]
    return tuple(uid for uid in lent if base <= uid < base + MAX_UIDS and _end_leftover(folder, uid))


def _lock_folder(settings: Settings) -> Path:
    for folder in (LOCK_FOLDER, settings.home.absolute() / "run" / "uids"):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if folder.stat().st_uid == 0:
            return folder
    raise NoFreeUid(f"neither {LOCK_FOLDER} nor the home can hold the locks of user ids: let root own one of them")


def _lock_free_uid(folder: Path, base: int) -> tuple[int, int]:
    for uid in range(base, base + MAX_UIDS):
        lock = _lock(folder, uid)
        if lock is None:
            continue
        if not process_tree.anyone_runs_as(uid) or _clear_uid(lock, uid):
            return lock, uid
        # Someone else's id: not ours to lend.
        os.close(lock)
    raise NoFreeUid(f"all {MAX_UIDS} user ids from {base} on are taken; JUSTENOUGH_JOB_UID_BASE names others")


def _lock(folder: Path, uid: int) -> int | None:
    lock = os.open(folder / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _end_leftover(folder: Path, uid: int) -> bool:
    lock = _lock(folder, uid)
    if lock is None:
        return False
    try:
        return process_tree.anyone_runs_as(uid) and _clear_uid(lock, uid)
    finally:
        os.close(lock)


def _clear_uid(lock: int, uid: int) -> bool:
    """Kill whatever runs as an id whose lock we hold, if it was lent and never given back; say whether it is free now."""
    if os.pread(lock, 64, 0) != _boot_id():
        return False
    end = time.monotonic() + KILL_TIMEOUT_S
    # What was killed keeps its number until whoever adopted it has seen its end.
    while (taken := process_tree.anyone_runs_as(uid)) and time.monotonic() < end:
        process_tree.signal_all(process_tree.of_uid(uid), signal.SIGKILL)
        time.sleep(0.01)
    return not taken


def _boot_id() -> bytes:
    return BOOT_ID_FILE.read_bytes() if BOOT_ID_FILE.is_file() else b"-"
