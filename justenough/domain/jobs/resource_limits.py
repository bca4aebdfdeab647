"""Whether a job takes more of its machine than its limits allow. No I/O, no clock."""

from __future__ import annotations

from typing import NamedTuple

from justenough.domain.core.units import duration_text, size_text
from justenough.domain.jobs.spec import ResourceLimits

MAX_APPROVAL_REQUESTS_PER_JOB = 100
"""Requests that one running job may have people answer. Its workflow opens no more; its session refuses what would be one too many."""


class ResourceUsage(NamedTuple):
    """What all processes of a job take together, as far as it was seen."""

    cpu: float
    """Seconds of processor time, of those that have ended too."""
    memory: int
    """Bytes."""
    processes: int
    """Processes and threads."""


def why_limits_exceeded(usage: ResourceUsage, limits: ResourceLimits) -> str | None:
    """Return which limit a job went over, with what was seen, or None where it keeps to them all."""
    if usage.memory > limits.memory:
        return f"limits.memory: it held {usage.memory / 2**20:.1f} MiB, more than {size_text(limits.memory)}"
    if usage.cpu > limits.cpu:
        return f"limits.cpu: it used {usage.cpu:.1f} s of processor time, more than {duration_text(limits.cpu)}"
    if usage.processes > limits.processes:
        return f"limits.processes: it had more than {limits.processes} processes and threads"
    return None
