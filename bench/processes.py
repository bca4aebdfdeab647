"""What processes have used, read from /proc: processor time and resident memory, by the stack's own names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")

Used = Mapping[str, float]
"""Processor seconds by process."""


def used(pids: Mapping[str, int]) -> Used:
    """Return the processor seconds of each, with those of its children, and of this process."""
    children: dict[int, list[int]] = {}
    own: dict[int, float] = {}
    for pid, fields in _all():
        children.setdefault(int(fields[1]), []).append(pid)
        own[pid] = sum(int(field) for field in fields[11:15]) / TICK

    def whole(pid: int) -> float:
        return own.get(pid, 0.0) + sum(whole(child) for child in children.get(pid, ()))

    return {name: whole(pid) for name, pid in pids.items()} | {"client": own[os.getpid()]}


def since(before: Used, after: Used) -> Used:
    """Return what was used in between."""
    return {name: after[name] - before[name] for name in after}


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _all() -> list[tuple[int, list[str]]]:
    found = []
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                # The fields from the state on: state, parent, …; times are the 12th to 15th of them.
                found.append((int(entry.name), (entry / "stat").read_text().rpartition(")")[2].split()))
            except OSError:
                continue
    return found
