"""Holds jobs at one point of their script until a test lets them go on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Latch:
    """Jobs that run `wait` block there until the latch is opened; later jobs do not block."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._opened: threading.Thread | None = None
        self.wait = f"read -r _ </dev/tcp/127.0.0.1/{self._socket.getsockname()[1]}"
        """The shell command that blocks; it fails once the latch is closed."""

    def open(self) -> None:
        """Release all waiting and later jobs."""
        if self._opened is None:
            self._opened = threading.Thread(target=self._let_go, name="latch", daemon=True)
            self._opened.start()

    def close(self) -> None:
        """Close the latch without releasing the waiting jobs."""
        # A blocked accept() ends only when the socket is shut down, not when it is closed.
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if self._opened is not None:
            self._opened.join()
        self._socket.close()

    def _let_go(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                with connection, suppress(OSError):
                    connection.sendall(b"go on\n")


@contextmanager
def hold_jobs() -> Iterator[Latch]:
    """Yield a latch for a block."""
    held = Latch()
    try:
        yield held
    finally:
        held.close()
