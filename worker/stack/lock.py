"""One supervisor per home: a lock that the system itself gives back when its holder dies, however it dies."""

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
    """Another supervisor keeps this home."""


@contextlib.contextmanager
def hold_supervisor_lock(places: StackPaths) -> Iterator[None]:
    """Hold the home's lock. Raises AlreadyRunning."""
    descriptor = os.open(places.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire_lock(descriptor, places)
        mark = identity_of(os.getpid())
        assert mark is not None
        write_pidfile(places.run, SUPERVISOR, mark)
        yield
        remove_pidfile(places.run, SUPERVISOR)
    finally:
        os.close(descriptor)


def supervisor_of(places: StackPaths) -> ProcessIdentity | None:
    """The supervisor that keeps this home now; None where none lives."""
    mark = read_pidfile(places.run, SUPERVISOR)
    return mark if mark is not None and mark.is_alive() else None


def _acquire_lock(descriptor: int, places: StackPaths) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"a stack is already running in {places.home}"
        raise AlreadyRunning(message) from error
