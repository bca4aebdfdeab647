"""One finding of doctor: what was checked, the result, its level and the remedy. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warning", "missing"]


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    what: str
    level: Level
    """missing: something required is absent, so doctor fails. warning: it works with limitations, or could not be checked."""
    found: str
    remedy: str = ""


def first_of(names: Sequence[str], most: int) -> str:
    """Join the first `most` of these names, and count the others."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")
