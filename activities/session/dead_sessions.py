"""Sessions whose worker died on this machine: recognised by locks that the kernel releases, and revoked at once.

Each session has a file that its worker keeps locked. A lock that is free while its file exists proves that the worker is dead: a worker
that is slow, busy or suspended keeps its lock. If a worker on another machine dies, only Temporal notices, after HEARTBEAT_TIMEOUT.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import structlog

from activities.process.uid_pool import boot_id
from activities.revocation import revoke
from activities.revocation.proof import has_standing_proof
from activities.support.async_tools import wait_up_to
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.ids import JOB_ID
from justenough.services.dependencies import Deps

CHECK_INTERVAL = timedelta(seconds=1)
MAX_CONCURRENT_SESSIONS = 16
POOL = ThreadPoolExecutor(MAX_CONCURRENT_SESSIONS, thread_name_prefix="dead-session")
"""Separate threads: a target that hangs must not delay other revocations."""
log = structlog.get_logger()


@contextmanager
def hold_session_lock(settings: Settings, job: str) -> Iterator[None]:
    """Keep the lock of a job's session until the block ends. If it cannot be taken, the session runs without one."""
    file, lock = _folder(settings) / job, None
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = _create_locked(file)
    except OSError as error:
        log.warning("session has no lock; if its worker dies, its access ends later", job=job, error=error.strerror)
    try:
        yield
    finally:
        if lock is not None:
            # Unlinked first: a file that exists without a lock is that of a dead session. If it stays, the job's proof keeps it from harm.
            with suppress(OSError):
                file.unlink()
            os.close(lock)


async def end_dead_sessions(deps: Deps, ended: asyncio.Event) -> None:
    """Search every second for sessions of dead workers, and revoke what they held, until the event is set."""
    while not ended.is_set():
        try:
            for dead in await asyncio.to_thread(find_dead_sessions, deps.settings):
                _ = POOL.submit(dead.revoke, deps)
        except Exception as error:  # noqa: BLE001 - whatever is the matter now, the next look must come
            log.warning("dead sessions cannot be searched for now", error=type(error).__name__)
        await wait_up_to(CHECK_INTERVAL, ended)


@dataclass(frozen=True, slots=True)
class DeadSession:
    """A session whose worker is dead. Its lock is now held by this process, so that no other worker deals with it."""

    job: str
    file: Path
    lock: int

    def revoke(self, deps: Deps) -> None:
        """Try once to revoke everything of the job. Temporal and the sweep soon notice the death too, and try until everything is revoked."""
        try:
            if not has_standing_proof(deps, self.job):
                result = revoke.revoke(deps, self.job, by="sweep", why="its worker died", settled=False)
                log.warning("revoked what a dead worker's job held", job=self.job, failures=result.failures)
        except Exception as error:  # noqa: BLE001 - the other nets do not depend on this attempt
            log.warning("a dead worker's job is left to other revocations", job=self.job, error=type(error).__name__)
        finally:
            self.forget()

    def forget(self) -> None:
        self.file.unlink(missing_ok=True)
        os.close(self.lock)


def find_dead_sessions(settings: Settings) -> tuple[DeadSession, ...]:
    """Take over and return the sessions whose worker died since this machine was started. Raises OSError."""
    found: list[DeadSession] = []
    folder = _folder(settings)
    for file in folder.iterdir() if folder.is_dir() else ():
        lock = _lock_if_free(file) if JOB_ID.fullmatch(file.name) else None
        if lock is None:
            continue
        dead = DeadSession(file.name, file, lock)
        if os.fstat(lock).st_nlink == 0:
            # Its session, or another worker, has just finished with it.
            os.close(lock)
        elif os.pread(lock, 64, 0) == boot_id():
            found.append(dead)
        else:
            # Another machine's, on a file system that may not pass on locks; or from before a restart, which took longer than Temporal needs.
            dead.forget()
    return tuple(found)


def _folder(settings: Settings) -> Path:
    return settings.home / "run" / "sessions"


def _create_locked(file: Path) -> int:
    """Create the file already locked, so that no other process can lock it first. Raises OSError."""
    beginning = file.with_name(f"{file.name}.new")
    lock = os.open(beginning, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.pwrite(lock, boot_id(), 0)
        beginning.rename(file)
    except OSError:
        os.close(lock)
        raise
    return lock


def _lock_if_free(file: Path) -> int | None:
    with suppress(OSError):
        lock = os.open(file, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise
        return lock
    return None
