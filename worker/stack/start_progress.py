"""How the supervisor tells whoever started it how far it is: one JSON line per step, through a pipe or to a function. No logic."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Step = Literal["step", "ready", "busy", "failed"]
"""busy: another supervisor keeps the home."""
Report = Callable[[Step, str], None]


@dataclass(frozen=True, slots=True)
class PipeReport:
    """Writes to a file descriptor; that nobody reads any more is fine."""

    descriptor: int

    def __call__(self, step: Step, text: str) -> None:
        with contextlib.suppress(OSError):
            os.write(self.descriptor, json.dumps({"step": step, "text": text}).encode() + b"\n")


def parse_report(line: bytes) -> tuple[str, str]:
    """Read one line of a PipeReport."""
    found = json.loads(line)
    return str(found["step"]), str(found["text"])
