"""Whether a job takes more of its machine than its limits allow. No I/O, no clock."""

from __future__ import annotations

from typing import NamedTuple

from justenough.domain.core.units import duration_text, size_text
from justenough.domain.jobs.spec import Limits

ASKED = 100
"""Requests that one running job may have people answer. Its workflow opens no more; its session refuses what would be one too many."""


class Used(NamedTuple):
    """What all processes of a job take together, as far as it was seen."""

    cpu: float
    """Seconds of processor time, of those that have ended too."""
    memory: int
    """Bytes."""
    processes: int
    """Processes and threads."""


def why_exceeded(used: Used, limits: Limits) -> str | None:
    """Return which limit a job went over, with what was seen, or None where it keeps to them all."""
    if used.memory > limits.memory:
        return f"limits.memory: it held {used.memory / 2**20:.1f} MiB, more than {size_text(limits.memory)}"
    if used.cpu > limits.cpu:
        return f"limits.cpu: it used {used.cpu:.1f} s of processor time, more than {duration_text(limits.cpu)}"
    if used.processes > limits.processes:
        return f"limits.processes: it had more than {limits.processes} processes and threads"
    return None
