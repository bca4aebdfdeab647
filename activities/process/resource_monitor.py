"""Sums up what a job's processes use together, from /proc, at short intervals, until it exceeds the job's limits.

The kernel limits each process at once (launcher.py). This limits all of them together a little later, and knows the reason. cgroups would do
better, but few workers may create them. One read of /proc/<pid>/stat gives all figures of a process; psutil reads three files for the same.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from activities.process import process_tree
from activities.process.bwrap_mounts import SCRATCH_FRACTIONS
from justenough.domain.jobs.resource_limits import ResourceUsage, why_limits_exceeded
from justenough.domain.jobs.spec import ResourceLimits

POLL_INTERVAL_S = 0.25
"""Seconds between two samples of one job: in this time it may exceed its limits."""
CONFIRM_AFTER_S = 0.05
"""Seconds until the second sample of a job that seemed to exceed its limits."""
MONITOR_POOL = ThreadPoolExecutor(1, thread_name_prefix="limits")
"""A thread of its own: all shared threads may be waiting for Vault."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Of /proc/<pid>/stat, counted from the state: parent; utime, stime and those of children that were waited for; threads; resident pages.
_PARENT, _TIMES, _THREADS, _RESIDENT = 1, slice(11, 15), 17, 21
# A mapped file's pages do not count: the kernel takes them back when it needs them.
_PSS_LINE = re.compile(rb"^Pss_(Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


class ProcessSample(NamedTuple):
    """One process in one sample."""

    pid: int
    """The id of a thread that is alive: a first thread that has ended shows nothing of what the others hold."""
    parent: int
    ticks: int
    """Processor time, including that of children that it waited for."""
    threads: int
    resident: int
    """Bytes; pages shared with other processes count in full."""


async def wait_for_excess(look: Callable[[], ResourceUsage], limits: ResourceLimits) -> str:
    """Sample a job until it exceeds a limit twice in a row; return which limit, and what was seen."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        if why_limits_exceeded(await loop.run_in_executor(MONITOR_POOL, look), limits):
            # A sample is not a snapshot: processes start and end during it. Only an excess that is seen twice counts.
            await asyncio.sleep(CONFIRM_AFTER_S)
            if why := why_limits_exceeded(await loop.run_in_executor(MONITOR_POOL, look), limits):
                return why


def measure_use(first: int, limits: ResourceLimits, *, sandboxed: bool) -> ResourceUsage:
    """Return what a process and its descendants use. In a sandbox, whose first process is bubblewrap's, include its folders in memory. Blocks."""
    folders = sum(_folder_bytes(Path(f"/proc/{first}/root{folder}")) for folder in SCRATCH_FRACTIONS) if sandboxed else 0
    # Parents come before their children: a process that ends meanwhile is missed, or counted once, never twice.
    pids = [first, *process_tree.descendants(first, limit=limits.processes)]
    processes = [sample for sample in map(_sample, pids) if sample]
    most = folders + sum(sample.resident for sample in processes)
    # This counts shared pages once per process. If even that is within the limit, the exact sum, which costs more, is not needed.
    memory = most if most <= limits.memory else _memory_bytes(processes, folders=folders)
    threads = sum(sample.threads for sample in processes)
    # bubblewrap's own first process is not the job's.
    return ResourceUsage(sum(sample.ticks for sample in processes) / TICKS_PER_S, memory, threads - 1 if sandboxed else threads)


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
    """Return the bytes in use, counting each shared page once, and mapped files of the folders too."""
    own = shared = 0
    known = {seen.pid for seen in processes}
    for seen in processes:
        # A child that is just being made by vfork runs in its parent's memory, so long as it has none of its own.
        if seen.parent in known and process_tree.shares_memory(seen.pid, seen.parent):
            continue
        found = {kind: 1024 * int(size) for kind, size in _PSS_LINE.findall(process_tree.read_proc(seen.pid, "smaps_rollup"))}
        # Without the figures: the worker lacks SYS_PTRACE (doctor reports that), or the process has just ended.
        own += found[b"Anon"] if found else (again.resident if (again := _sample(seen.pid)) else 0)
        shared += found.get(b"Shmem", 0)
    return own + max(shared, folders)


def _folder_bytes(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize
