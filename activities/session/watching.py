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

from activities.session import members
from activities.session.layout import SCRATCH
from justenough.exceeding import Used, why_exceeded
from justenough.spec import Limits

EVERY = 0.25
"""Seconds between two looks at one job: in this time it may go past its limits."""
LOOKERS = ThreadPoolExecutor(1, thread_name_prefix="limits")
"""A thread of its own: those that all others share may all be waiting for Vault."""
TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
# Of /proc/<pid>/stat, counted from the state: utime, stime and those of children that were waited for; threads; resident pages.
_TIMES, _THREADS, _RESIDENT = slice(11, 15), 17, 21
_SHARE = re.compile(rb"^Pss(_Shmem)?:\s+(\d+) kB", re.MULTILINE)


async def went_over(look: Callable[[], Used], limits: Limits) -> str:
    """Look until a job takes more than its limits allow; return which, and what was seen."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(EVERY)
        if why := why_exceeded(await loop.run_in_executor(LOOKERS, look), limits):
            return why


def used_by(first: int, limits: Limits, *, sandboxed: bool) -> Used:
    """Return what a process and its descendants take; of a sandbox, whose first one is bubblewrap's, its folders in memory too. Blocks."""
    pids = [first, *members.below(first, most=limits.processes)]
    used = _added_up(pids, folders=_filled(first) if sandboxed else 0, limits=limits)
    return used._replace(processes=used.processes - 1) if sandboxed else used


def _added_up(pids: Sequence[int], *, folders: int, limits: Limits) -> Used:
    stats = [fields for fields in map(members.stat, pids) if len(fields) > _RESIDENT]
    ticks = sum(int(time) for fields in stats for time in fields[_TIMES])
    most = folders + sum(map(_resident, stats))
    # Pages that processes share count for each of them: whose sum is within the limit needs no closer look, which costs more.
    memory = most if most <= limits.memory else _shared_once(pids, folders=folders)
    return Used(ticks / TICK, memory, sum(int(fields[_THREADS]) for fields in stats))


def _shared_once(pids: Iterable[int], *, folders: int) -> int:
    """Return bytes, with each page that processes share counted once, and files in memory that are mapped as well."""
    whole = shared = 0
    for pid in pids:
        found = {bool(kind): 1024 * int(size) for kind, size in _SHARE.findall(members.read(pid, "smaps_rollup"))}
        # Nobody may look closer (a worker without SYS_PTRACE, which doctor tells) or it has just ended, and is not there any more.
        whole += found[False] if found else _resident(members.stat(pid))
        shared += found.get(True, 0)
    return whole - shared + max(shared, folders)


def _resident(fields: Sequence[str]) -> int:
    return PAGE * int(fields[_RESIDENT]) if len(fields) > _RESIDENT else 0


def _filled(init: int) -> int:
    """Return the bytes in the folders in memory of a sandbox."""
    return sum(_in_folder(Path(f"/proc/{init}/root{folder}")) for folder in SCRATCH)


def _in_folder(folder: Path) -> int:
    try:
        found = os.statvfs(folder)
    except OSError:
        return 0
    return (found.f_blocks - found.f_bfree) * found.f_frsize
