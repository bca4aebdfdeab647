"""What a job's processes take together, added up from /proc again and again until it is more than the job's limits allow.

The kernel limits each process at once (launch.py); this bounds all of them together a little later, and knows why. Beyond it there would be
cgroups, which few workers may make.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from activities.process import process_tree
from activities.process.bwrap_mounts import SCRATCH_FRACTIONS
from justenough.domain.jobs.resource_limits import ResourceUsage, why_limits_exceeded
from justenough.domain.jobs.spec import ResourceLimits

POLL_INTERVAL_S = 0.25
"""Seconds between two looks at one job: in this time it may go past its limits."""
CONFIRM_AFTER_S = 0.05
"""Seconds until the second look at a job that seemed to take too much."""
MONITOR_POOL = ThreadPoolExecutor(1, thread_name_prefix="limits")
"""A thread of its own: those that all others share may all be waiting for Vault."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Of /proc/<pid>/stat, counted from the state: parent; utime, stime and those of children that were waited for; threads; resident pages.
_PARENT, _TIMES, _THREADS, _RESIDENT = 1, slice(11, 15), 17, 21
# A mapped file's pages are not held: the kernel takes them back when it needs them.
_PSS_LINE = re.compile(rb"^Pss_(Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


class ProcessSample(NamedTuple):
    """One process at one look."""

    pid: int
    """Of a thread of it that lives: a first thread that has ended shows nothing of what the others hold."""
    parent: int
    ticks: int
    """Of processor time, with that of children that it waited for."""
    threads: int
    resident: int
    """Bytes; pages that it shares with others count whole."""


async def wait_for_excess(look: Callable[[], ResourceUsage], limits: ResourceLimits) -> str:
    """Look until a job takes more than its limits allow; return which, and what was seen."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        if why_limits_exceeded(await loop.run_in_executor(MONITOR_POOL, look), limits):
            # A look is no snapshot: processes start and end during it. What is so twice is so.
            await asyncio.sleep(CONFIRM_AFTER_S)
            if why := why_limits_exceeded(await loop.run_in_executor(MONITOR_POOL, look), limits):
                return why


def measure_use(first: int, limits: ResourceLimits, *, sandboxed: bool) -> ResourceUsage:
    """Return what a process and its descendants take; of a sandbox, whose first one is bubblewrap's, its folders in memory too. Blocks."""
    pids = [first, *process_tree.descendants(first, limit=limits.processes)]
    used = _sum_up(pids, folders=_folders_bytes(first) if sandboxed else 0, limits=limits)
    return used._replace(processes=used.processes - 1) if sandboxed else used


def _sum_up(pids: Iterable[int], *, folders: int, limits: ResourceLimits) -> ResourceUsage:
    # Parents come before their children: whoever ends meanwhile is missed, or counted once, never twice.
    processes = [seen for seen in map(_sample, pids) if seen]
    most = folders + sum(seen.resident for seen in processes)
    # Pages that processes share count for each of them: whose sum is within the limit needs no closer look, which costs more.
    memory = most if most <= limits.memory else _memory_bytes(processes, folders=folders)
    return ResourceUsage(sum(seen.ticks for seen in processes) / TICKS_PER_S, memory, sum(seen.threads for seen in processes))


def _sample(pid: int) -> ProcessSample | None:
    fields = process_tree.read_stat(pid)
    if len(fields) <= _RESIDENT:
        return None
    threads, ticks = int(fields[_THREADS]), sum(map(int, fields[_TIMES]))
    if fields[0] == "Z" and threads > 1:
        pid = max(process_tree.threads(pid), default=pid)
        fields = process_tree.read_stat(pid) or fields
    return ProcessSample(pid, int(fields[_PARENT]), ticks, threads, int(fields[_RESIDENT]) * PAGE_BYTES)


def _memory_bytes(processes: Sequence[ProcessSample], *, folders: int) -> int:
    """Return bytes, with each page that processes share counted once, and mapped files of the folders too."""
    own = shared = 0
    known = {seen.pid for seen in processes}
    for seen in processes:
        # A child that is just being made by vfork runs in its parent's memory, so long as it has none of its own.
        if seen.parent in known and process_tree.shares_memory(seen.pid, seen.parent):
            continue
        found = {kind: 1024 * int(size) for kind, size in _PSS_LINE.findall(process_tree.read_proc(seen.pid, "smaps_rollup"))}
        # Nobody may look closer (a worker without SYS_PTRACE, which doctor tells) or it has just ended, and is not there any more.
        own += found[b"Anon"] if found else _current_resident(seen.pid)
        shared += found.get(b"Shmem", 0)
    return own + max(shared, folders)


def _current_resident(pid: int) -> int:
    seen = _sample(pid)
    return seen.resident if seen else 0


def _folders_bytes(init: int) -> int:
    """Return the bytes in the folders in memory of a sandbox."""
    return sum(_folder_bytes(Path(f"/proc/{init}/root{folder}")) for folder in SCRATCH_FRACTIONS)


def _folder_bytes(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize
