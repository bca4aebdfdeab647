"""A job that exceeds a limit is told which one and what was measured; a job within its limits is left alone."""

from __future__ import annotations

import pytest

from justenough.domain.jobs.spec import ResourceLimits, ResourceUsage

LIMITS = ResourceLimits(cpu=60, memory=2**30, processes=10)
AT = ResourceUsage(cpu=60.0, memory=2**30, processes=10)


def test_usage_that_equals_its_limits_is_within_them() -> None:
    assert LIMITS.why_exceeded(AT) is None
    assert LIMITS.why_exceeded(ResourceUsage(0.0, 0, 0)) is None


@pytest.mark.parametrize(
    "used, why",
    [
        (AT._replace(memory=2**31), "limits.memory: it used 2048.0 MiB, more than 1GiB"),
        (AT._replace(cpu=61.2), "limits.cpu: it used 61.2 s of processor time, more than 1m"),
        (AT._replace(processes=11), "limits.processes: it had more than 10 processes and threads"),
        (ResourceUsage(cpu=99, memory=2**31, processes=99), "limits.memory: it used 2048.0 MiB, more than 1GiB"),
    ],
)
def test_usage_over_a_limit_names_that_limit(used: ResourceUsage, why: str) -> None:
    assert LIMITS.why_exceeded(used) == why
