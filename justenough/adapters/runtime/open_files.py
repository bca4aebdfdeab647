"""The limit of a process's open files, which include its connections. Often it is 1024 unless the process raises it."""

from __future__ import annotations

import resource


def raise_limit(needed: int) -> int:
    """Raise this process's soft limit of open files to `needed`, or as far as its hard limit permits; return how many it may open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    possible = needed if hard == resource.RLIM_INFINITY else min(hard, needed)
    if soft != resource.RLIM_INFINITY and soft < possible:
        resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
    return possible
