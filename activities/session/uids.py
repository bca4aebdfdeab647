"""Lends each running job a user id of its own, never one that anything on this machine still runs as. Only root can lend."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from activities.session import members
from activities.settings import Settings
from justenough.errors import RetryLater

SLOTS = 4096
LOCKS = Path("/run/justenough/uids")
"""One file per id, locked while it is lent: by whichever worker on this machine."""


class NoFreeUid(RetryLater):
    """Every user id for jobs is taken."""


@contextmanager
def lent_uid(settings: Settings) -> Iterator[int]:
    """Lend a user id until the block ends; without root it is the worker's own. Raises NoFreeUid."""
    if os.geteuid() != 0:
        yield os.geteuid()
        return
    folder = _locks(settings)
    lock, uid = _locked(folder, settings.job_uid_base)
    try:
        yield uid
    finally:
        # Closing gives the lock back; the file stays, for unlinking would race with the next one.
        os.close(lock)


def _locks(settings: Settings) -> Path:
    for folder in (LOCKS, settings.home.absolute() / "run" / "uids"):
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError:
            continue
        if folder.stat().st_uid == 0:
            return folder
    raise NoFreeUid(f"neither {LOCKS} nor the home can hold the locks of user ids")


def _locked(folder: Path, base: int) -> tuple[int, int]:
    for uid in range(base, base + SLOTS):
        lock = os.open(folder / str(uid), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        if not members.anyone_runs_as(uid):
            return lock, uid
        # A worker that died left something behind, or the id is someone's: either way it is not ours to lend.
        os.close(lock)
    raise NoFreeUid(f"all {SLOTS} user ids from {base} on are taken")
