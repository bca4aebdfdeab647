"""One thing that doctor looked at: what it found, how bad that is, and the remedy. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "missing"]


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    what: str
    level: Level
    """missing: something needed is not there, doctor fails. warning: works, with less, or could not be seen."""
    found: str
    remedy: str = ""
