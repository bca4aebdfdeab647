"""One supervisor per home: a file lock that the kernel releases when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from justenough.domain.core.errors import Conflict
from worker.stack.paths import StackPaths
from worker.stack.pidfile import ProcessIdentity, identity_of, read_pidfile, remove_pidfile, wait_until, write_pidfile

SUPERVISOR = "supervisor"
LOCK_TIMEOUT_S = 30
"""Maximum time between a process's taking the lock and writing its pidfile."""


class AlreadyRunning(Conflict):
    """Another supervisor runs in this home."""


@contextlib.contextmanager
def hold_supervisor_lock(places: StackPaths) -> Iterator[None]:
    """Hold the home's lock during a block. Raises AlreadyRunning, normally once `supervisor_of` can return the holder."""
    descriptor = os.open(places.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Its holder may have yet to write its pidfile, or may be about to end.
        wait_until(lambda: _try_lock(descriptor) or supervisor_of(places) is not None, within=LOCK_TIMEOUT_S)
        if not _try_lock(descriptor):
            raise AlreadyRunning(f"a stack is already running in {places.home}")
        identity = identity_of(os.getpid())
        assert identity is not None
        # A reader of the pidfile must not take a killed supervisor's stack.json for this one's.
        places.stack.unlink(missing_ok=True)
        write_pidfile(places.run, SUPERVISOR, identity)
        yield
        remove_pidfile(places.run, SUPERVISOR)
    finally:
        os.close(descriptor)


def supervisor_of(places: StackPaths) -> ProcessIdentity | None:
    """Return the supervisor that runs in this home; None if none runs."""
    identity = read_pidfile(places.run, SUPERVISOR)
    return identity if identity is not None and identity.is_alive() else None


def _try_lock(descriptor: int) -> bool:
    """Take the lock if it is free, and return whether this process holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
