"""Checks whether a job's processes exceed its resource limits. No I/O, no clock."""

from __future__ import annotations

from typing import NamedTuple

from justenough.domain.core.units import duration_text, size_text
from justenough.domain.jobs.spec import ResourceLimits

MAX_APPROVAL_REQUESTS_PER_JOB = 100
"""Maximum approval requests that one running job may open. Its workflow opens no more, and its session denies further requests."""


class ResourceUsage(NamedTuple):
    """The observed resource usage of all processes of a job together."""

    cpu: float
    """Seconds of processor time, including processes that have ended."""
    memory: int
    """Bytes."""
    processes: int
    """Processes and threads."""


def why_limits_exceeded(usage: ResourceUsage, limits: ResourceLimits) -> str | None:
    """Return which limit a job exceeded and by how much, or None if it exceeded none."""
    if usage.memory > limits.memory:
        return f"limits.memory: it used {usage.memory / 2**20:.1f} MiB, more than {size_text(limits.memory)}"
    if usage.cpu > limits.cpu:
        return f"limits.cpu: it used {usage.cpu:.1f} s of processor time, more than {duration_text(limits.cpu)}"
    if usage.processes > limits.processes:
        return f"limits.processes: it had more than {limits.processes} processes and threads"
    return None
