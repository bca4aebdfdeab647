"""Lends each running job a separate user id that no process on this machine runs as. Only root can lend.

Processes of a dead worker's job are killed: their id was unused when it was lent, is still marked as lent, and its lock is free.
"""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from activities.process import process_tree
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import RetryLater

MAX_UIDS = 4096
CLOSED_UIDS = 2048
"""The first ids of the pool. The firewall blocks these from Vault; the others are for jobs that the catalog lets reach Vault."""
LOCK_FOLDER = Path("/run/justenough/uids")
"""One file per id, locked by the worker that lends it. It contains the machine's boot id while the id is lent."""
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
KILL_TIMEOUT_S = 5.0
"""Seconds to wait until killed processes are gone."""


class NoFreeUid(RetryLater):
    """Every user id for jobs is in use, or its lock cannot be taken."""


@contextmanager
def lend_uid(settings: Settings, *, reaches_vault: bool = False) -> Iterator[int]:
    """Yield a user id that is lent until the block ends; without root, the worker's own. Raises NoFreeUid.

    `reaches_vault`: lend an id that the firewall does not block from Vault.
    """
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    folder, base = _lock_folder(settings), settings.job_uid_base
    uids = range(base + CLOSED_UIDS, base + MAX_UIDS) if reaches_vault else range(base, base + CLOSED_UIDS)
    # Containers of one host do not see each other's locks and processes, but the kernel counts a user's processes in all of them together.
    # So each container begins at another id.
    begin = Random(Path("/proc/self/ns/pid").stat().st_ino).randrange(len(uids))  # noqa: S311 - nobody has to guess it
    for uid in (*uids[begin:], *uids[:begin]):
        lock = _lock(folder, uid)
        if lock is None:
            continue
        if not process_tree.anyone_runs_as(uid) or _clear_uid(lock, uid):
            break
        # This id is in use by processes that do not belong to a job.
        os.close(lock)
    else:
        raise NoFreeUid(f"all {len(uids)} user ids from {uids.start} on are in use; set JUSTENOUGH_JOB_UID_BASE to a free range")
    try:
        try:
            os.pwrite(lock, boot_id(), 0)
        except OSError as error:
            raise NoFreeUid(f"{folder / str(uid)}, the lock of a user id, cannot be written: {error.strerror}") from error
        yield uid
        os.ftruncate(lock, 0)
    finally:
        # Closing releases the lock. The file stays: unlinking it would race with the next lender.
        os.close(lock)


def end_leftovers(settings: Settings) -> tuple[int, ...]:
    """Kill processes of dead workers' jobs on this machine; return their user ids. Do nothing without root. Blocks."""
    if os.geteuid() != 0:
        return ()
    folder, base, ended = _lock_folder(settings), settings.job_uid_base, []
    for uid in [int(file.name) for file in folder.iterdir() if file.name.isdigit() and file.stat().st_size]:
        lock = _lock(folder, uid) if base <= uid < base + MAX_UIDS else None
        if lock is not None:
            try:
                if process_tree.anyone_runs_as(uid) and _clear_uid(lock, uid):
                    ended.append(uid)
            finally:
                os.close(lock)
    return tuple(ended)


def _lock_folder(settings: Settings) -> Path:
    for folder in (LOCK_FOLDER, settings.home.absolute() / "run" / "uids"):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if folder.stat().st_uid == 0:
            return folder
    raise NoFreeUid(f"neither {LOCK_FOLDER} nor {folder} can be used for the locks of user ids: make root the owner of one of them")


def _lock(folder: Path, uid: int) -> int | None:
    try:
        lock = os.open(folder / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise NoFreeUid(f"{folder / str(uid)}, the lock of a user id, cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _clear_uid(lock: int, uid: int) -> bool:
    """Kill the processes that run as an id whose lock we hold, if it was lent and never returned; return whether the id is free now."""
    if os.pread(lock, 64, 0) != boot_id():
        return False
    end = time.monotonic() + KILL_TIMEOUT_S
    # A killed process keeps its pid until its parent has waited for it.
    while (in_use := process_tree.anyone_runs_as(uid)) and time.monotonic() < end:
        if not process_tree.kill_user(uid):
            process_tree.signal_all(process_tree.of_uid(uid), signal.SIGKILL)
        time.sleep(0.01)
    return not in_use


def boot_id() -> bytes:
    """Return the id of this start of the machine."""
    return BOOT_ID_FILE.read_bytes() if BOOT_ID_FILE.is_file() else b"-"
