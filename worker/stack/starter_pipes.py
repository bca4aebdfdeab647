"""The two pipes between a supervisor and its starter: progress reports to the starter, one JSON line per step; and the lifeline.

The lifeline shows the supervisor that its starter has ended, because the kernel then closes the starter's end. It works however the starter
ends, even by SIGKILL, and needs no polling. A starter that lets the stack outlive it writes a byte first.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Literal

import structlog

log = structlog.get_logger("worker.stack")
Step = Literal["step", "ready", "busy", "failed"]
"""busy: another supervisor runs in the home."""
Report = Callable[[Step, str], None]


def write_report(descriptor: int | None, step: Step, text: str) -> None:
    """Report a step by a file descriptor; without one, in the log. A reader that is gone is not an error."""
    if descriptor is None:
        log.info("stack", step=step, text=text)
        return
    with contextlib.suppress(OSError):
        os.write(descriptor, json.dumps({"step": step, "text": text}).encode() + b"\n")


def parse_report(line: bytes) -> tuple[str, str]:
    """Parse one line that `write_report` wrote; return the step and its text."""
    report = json.loads(line)
    return str(report["step"]), str(report["text"])


def watch_lifeline(descriptor: int, loop: asyncio.AbstractEventLoop, on_end: Callable[[], None]) -> None:
    """Call `on_end` once the starter is gone. `descriptor`: the supervisor's end of the pipe.

    Never call it if the starter has written a byte, because the stack may then outlive the starter.
    """

    def read() -> None:
        loop.remove_reader(descriptor)
        if not os.read(descriptor, 1):
            log.info("the process that started the stack has ended; stopping the stack")
            on_end()

    loop.add_reader(descriptor, read)
    if sys.platform == "linux":
        # A supervisor that is suspended (SIGSTOP) sees nothing. The kernel resumes it when the pipe ends.
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGCONT)
        fcntl.fcntl(descriptor, fcntl.F_SETFL, fcntl.fcntl(descriptor, fcntl.F_GETFL) | os.O_ASYNC)


@contextlib.contextmanager
def held_lifeline() -> Iterator[int]:
    """Hold the starter's end during a block and yield the descriptor of the other end, for the supervisor to inherit."""
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)
