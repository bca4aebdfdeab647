"""Holds jobs at one point of their script until a test lets them go on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Latch:
    """Jobs that run `wait` stand still there until it is opened."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._socket.setblocking(False)
        self.wait = f"read -r _ </dev/tcp/127.0.0.1/{self._socket.getsockname()[1]}"
        """The shell command that stands still; it fails where nobody opens any more."""

    def open(self) -> None:
        """Let go whoever waits now."""
        with suppress(BlockingIOError):
            while True:
                connection, _ = self._socket.accept()
                with connection:
                    connection.sendall(b"go on\n")

    def close(self) -> None:
        """Hold nobody any more."""
        self._socket.close()


@contextmanager
def latch() -> Iterator[Latch]:
    """Hold jobs for the length of a block."""
    held = Latch()
    try:
        yield held
    finally:
        held.close()
