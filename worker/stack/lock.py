"""One supervisor per home: a lock that the system itself gives back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from justenough.domain.core.errors import Conflict
from worker.stack.paths import Places
from worker.stack.pidfile import Mark, drop_mark, keep_mark, kept_mark, mark_of

NAME = "supervisor"


class AlreadyRunning(Conflict):
    """Another supervisor keeps this home."""


@contextlib.contextmanager
def sole_supervisor(places: Places) -> Iterator[None]:
    """Hold the home's lock. Raises AlreadyRunning."""
    descriptor = os.open(places.run / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, places)
        mark = mark_of(os.getpid())
        assert mark is not None
        keep_mark(places.run, NAME, mark)
        yield
        drop_mark(places.run, NAME)
    finally:
        os.close(descriptor)


def supervisor_of(places: Places) -> Mark | None:
    """The supervisor that keeps this home now; None where none lives."""
    mark = kept_mark(places.run, NAME)
    return mark if mark is not None and mark.lives() else None


def _lock(descriptor: int, places: Places) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        message = f"a stack is already running in {places.home}"
        raise AlreadyRunning(message) from error
