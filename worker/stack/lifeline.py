"""How a supervisor learns that whoever started it is gone: a pipe whose other end the starter holds, and the system closes with it.

It works however the starter ends, by SIGKILL too, and needs no polling. A starter that lets the stack outlive it says so first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import structlog

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Lifeline:
    """The supervisor's end of the pipe."""

    descriptor: int

    def watch(self, loop: asyncio.AbstractEventLoop, ended: Callable[[], None]) -> None:
        """Call `ended` once the starter is gone; never after it wrote anything, which means that the stack may outlive it."""

        def read() -> None:
            loop.remove_reader(self.descriptor)
            if not os.read(self.descriptor, 1):
                log.info("the starter is gone, stopping the stack")
                ended()

        loop.add_reader(self.descriptor, read)


@contextlib.contextmanager
def held_lifeline() -> Iterator[int]:
    """Hold the starter's end for a block and yield the descriptor of the other end, for the supervisor to inherit."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)
