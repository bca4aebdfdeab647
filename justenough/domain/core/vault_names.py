"""What a job's own part of Vault is called, and which hard ends its tokens may have. Pure; policies and calls both follow it.

The worker's policy lists the hard ends one by one: Vault's globs could not tell `1h` from `1ns`, which counts as none at all.
"""

from __future__ import annotations

JOB_ROLE_PREFIX = "je-job-"
PAYLOAD_KEY = "je-payloads"
"""The transit key under which what opens a lock is kept."""
PAGE_SESSION_KEY = "je-pages"
"""The transit key under which the pages' sessions keep their people's tokens; derived anew from each cookie's secret."""
HARD_END_MINUTES = tuple(range(1, 60))
HARD_END_HOURS = tuple(range(1, 8 * 24 + 1))
"""A job runs seven days at most; the eighth is for what comes after."""
HARD_ENDS = (*(f"{minutes}m" for minutes in HARD_END_MINUTES), *(f"{hours}h" for hours in HARD_END_HOURS))


def job_role(job: str) -> str:
    """Return the name of a job's token role, which is also the end of its prefix: `je-job-j-dev-…`."""
    return JOB_ROLE_PREFIX + job


def hard_end_of(seconds: int) -> str:
    """Return the least hard end that is not shorter, as `token_explicit_max_ttl` takes it; raise ValueError past eight days or below 1."""
    if not 1 <= seconds <= HARD_END_HOURS[-1] * 3600:
        message = f"a hard end is between 1 s and {HARD_END_HOURS[-1]} h, not {seconds} s"
        raise ValueError(message)
    minutes = -(-seconds // 60)
    return f"{minutes}m" if minutes < 60 else f"{-(-seconds // 3600)}h"
