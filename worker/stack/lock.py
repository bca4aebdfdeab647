"""One supervisor per home: a file lock that the kernel releases when its holder dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from justenough.domain.core.errors import Conflict
from worker.stack.paths import StackPaths
from worker.stack.pidfile import ProcessIdentity, identity_of, read_pidfile, remove_pidfile, write_pidfile

SUPERVISOR = "supervisor"


class AlreadyRunning(Conflict):
    """Another supervisor runs in this home."""


@contextlib.contextmanager
def hold_supervisor_lock(places: StackPaths) -> Iterator[None]:
    """Hold the home's lock for a block. Raises AlreadyRunning."""
    descriptor = os.open(places.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"a stack is already running in {places.home}"
            raise AlreadyRunning(message) from error
        identity = identity_of(os.getpid())
        assert identity is not None
        write_pidfile(places.run, SUPERVISOR, identity)
        yield
        remove_pidfile(places.run, SUPERVISOR)
    finally:
        os.close(descriptor)


def supervisor_of(places: StackPaths) -> ProcessIdentity | None:
    """Return the supervisor that runs in this home; None if none runs."""
    identity = read_pidfile(places.run, SUPERVISOR)
    return identity if identity is not None and identity.is_alive() else None
