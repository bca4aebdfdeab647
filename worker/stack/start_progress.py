"""The supervisor's progress reports to its starter: one JSON line per step, through a pipe or to a function. No logic."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import structlog

log = structlog.get_logger("worker.stack")
Step = Literal["step", "ready", "busy", "failed"]
"""busy: another supervisor runs in the home."""
Report = Callable[[Step, str], None]


@dataclass(frozen=True, slots=True)
class ProgressReport:
    """Writes to a file descriptor; without one, to the log. A reader that is gone is not an error."""

    descriptor: int | None

    def __call__(self, step: Step, text: str) -> None:
        if self.descriptor is None:
            log.info("stack", step=step, text=text)
            return
        with contextlib.suppress(OSError):
            os.write(self.descriptor, json.dumps({"step": step, "text": text}).encode() + b"\n")


def parse_report(line: bytes) -> tuple[str, str]:
    """Parse one line of a ProgressReport; return the step and its text."""
    report = json.loads(line)
    return str(report["step"]), str(report["text"])
