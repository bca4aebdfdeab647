"""Sums up the resource use of a job's processes, from /proc, at short intervals, until they exceed the job's limits.

The kernel limits each process immediately (job_command.py). This module limits all of them together, a little later, and knows which limit was
exceeded. cgroups would be better, but few workers may create them. One read of /proc/<pid>/stat yields all figures of a process; psutil
needs three reads.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from activities.process import process_tree
from activities.process.sandbox import SCRATCH_FRACTIONS
from justenough.domain.jobs.spec import ResourceLimits, ResourceUsage

POLL_INTERVAL_S = 0.25
"""Seconds between two samples of one job; it may exceed its limits unnoticed for this long."""
CONFIRM_AFTER_S = 0.05
"""Seconds until the second sample of a job that seemed to exceed its limits."""
MONITOR_POOL = ThreadPoolExecutor(1, thread_name_prefix="limits")
"""A separate thread, because all shared threads may be waiting for Vault."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
INODE_BYTES = 1024
"""Kernel memory that an empty file in memory takes: its inode and its directory entry."""
# Fields of /proc/<pid>/stat, counted from the state: parent; utime, stime and those of children that were waited for; threads; resident pages.
_PARENT, _TIMES, _THREADS, _RESIDENT = 1, slice(11, 15), 17, 21
# A mapped file's pages do not count: the kernel takes them back when it needs them.
_PSS_LINE = re.compile(rb"^Pss_(Anon|Shmem):\s+(\d+) kB", re.MULTILINE)


class ProcessSample(NamedTuple):
    pid: int
    """Id of a live thread: if the first thread has ended, it does not show the memory of the others."""
    parent: int
    ticks: int
    """Processor time, including that of the children that the process waited for."""
    threads: int
    resident: int
    """Bytes; shared pages count in full."""


async def wait_for_excess(measure: Callable[[], ResourceUsage], limits: ResourceLimits) -> str:
    """Sample a job until it exceeds a limit twice in a row; return the limit and the measured value."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(POLL_INTERVAL_S)
        if limits.why_exceeded(await loop.run_in_executor(MONITOR_POOL, measure)):
            # A sample is not a snapshot: processes start and end during it. Only an excess that is measured twice counts.
            await asyncio.sleep(CONFIRM_AFTER_S)
            if why := limits.why_exceeded(await loop.run_in_executor(MONITOR_POOL, measure)):
                return why


def measure_use(first: int, limits: ResourceLimits, *, sandboxed: bool) -> ResourceUsage:
    """Return the resources that a process and its descendants use. In a sandbox, whose first process is bubblewrap's, include its in-memory folders. Blocks."""
    folders = 0
    for folder in SCRATCH_FRACTIONS if sandboxed else ():
        with suppress(OSError):
            stats = os.statvfs(f"/proc/{first}/root{folder}")
            folders += (stats.f_blocks - stats.f_bfree) * stats.f_frsize + (stats.f_files - stats.f_ffree) * INODE_BYTES
    # Parents come before their children, so a process that ends meanwhile is never counted twice.
    pids = [first, *process_tree.descendants(first, limit=limits.processes)]
    processes = [sample for sample in map(_sample, pids) if sample]
    most = folders + sum(sample.resident for sample in processes)
    # This counts shared pages once per process. If even that is within the limit, skip the exact sum, which costs more.
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
    """Return the bytes in use, counting each shared page once; `folders` are the bytes in in-memory folders."""
    private = shared = 0
    pids = {sample.pid for sample in processes}
    for sample in processes:
        # A child of vfork runs in its parent's memory until it has its own.
        if sample.parent in pids and process_tree.shares_memory(sample.pid, sample.parent):
            continue
        sizes = {kind: 1024 * int(size) for kind, size in _PSS_LINE.findall(process_tree.read_proc(sample.pid, "smaps_rollup"))}
        # No sizes: the worker lacks SYS_PTRACE (doctor reports that), or the process has just ended.
        private += sizes[b"Anon"] if sizes else (again.resident if (again := _sample(sample.pid)) else 0)
        shared += sizes.get(b"Shmem", 0)
    return private + max(shared, folders)
