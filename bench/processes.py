"""The processor time and resident memory of processes, by the stack's own names."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping

import psutil

Used = Mapping[str, float]
"""Processor seconds by process."""


def used(pids: Mapping[str, int]) -> Used:
    """Return the processor seconds of each process with its children, and those of this process as `client`."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    own: dict[int, float] = {}
    for process in psutil.process_iter(["ppid", "cpu_times"]):
        if times := process.info["cpu_times"]:
            children[process.info["ppid"]].append(process.pid)
            # User and system time, and the same of children that have ended.
            own[process.pid] = sum(times[:4])

    def total(pid: int) -> float:
        return own.get(pid, 0.0) + sum(total(child) for child in children[pid])

    return {name: total(pid) for name, pid in pids.items()} | {"client": own[os.getpid()]}


def since(before: Used, after: Used) -> Used:
    """Return the processor seconds between two measurements."""
    return {name: after[name] - before[name] for name in after}


def resident(pid: int) -> float:
    """Return a process's resident memory in MB."""
    return float(psutil.Process(pid).memory_info().rss) / 2**20
