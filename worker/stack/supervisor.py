"""The one process that starts the embedded servers, worker and console, keeps them running and stops them in order.

It holds no business: what each child is stands in that child's own module, what the shop and Vault contain in shop.py and
worker/provisioning.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Coroutine, Iterable
from functools import partial
from typing import Any

import structlog

from justenough.adapters.configuration.settings import Settings
from worker.stack.lifeline import Lifeline
from worker.stack.lock import sole_supervisor
from worker.stack.managed_process import Keeper
from worker.stack.paths import Places
from worker.stack.pidfile import drop_mark, kept_mark
from worker.stack.plan import Plan, made_plan
from worker.stack.private_files import private_folder
from worker.stack.seed import fill
from worker.stack.stack_file import BESIDE, CHILDREN, OURS, SERVERS
from worker.stack.start_progress import Report

log = structlog.get_logger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ORPHAN_PATIENCE = 5


def supervise(
    settings: Settings, *, only: Iterable[str] = CHILDREN, provision: bool = True, lifeline: Lifeline | None = None, report: Report
) -> None:
    """Run the stack until a signal or the end of its lifeline stops it.

    Raises AlreadyRunning, ProgramMissing, CannotEnter, PortTaken, ChildFailed and the like.
    """
    places = Places.of(settings.home)
    # Nothing that this process or a child makes is for others to read, and no child leaves its memory on disk.
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    make_home(places)
    with sole_supervisor(places):
        places.stack.unlink(missing_ok=True)
        end_orphans(places)
        with made_plan(settings, frozenset(only)) as plan:
            asyncio.run(Supervisor(plan, provision=provision, lifeline=lifeline, report=report).run())


def make_home(places: Places) -> None:
    """Make the home and the folders that every start needs."""
    # PostgreSQL's account must pass through the home; it cannot list it.
    private_folder(places.home, mode=0o711)
    for folder in (places.run, places.logs):
        private_folder(folder)


def end_orphans(places: Places) -> tuple[str, ...]:
    """End the children that a killed supervisor left; return their names."""
    ended = []
    for name in reversed(CHILDREN):
        mark = kept_mark(places.run, name)
        if mark is not None and mark.lives():
            mark.end(signal.SIGINT if name == "postgres" else signal.SIGTERM, within=ORPHAN_PATIENCE)
            ended.append(name)
        drop_mark(places.run, name)
    return tuple(ended)


class Supervisor:
    """One run of the stack, from its start to its stop."""

    def __init__(self, plan: Plan, *, provision: bool, lifeline: Lifeline | None, report: Report) -> None:
        self._plan = plan
        self._provision = provision
        self._lifeline = lifeline
        self._report = report
        self._keepers = {child.name: Keeper(child, plan.places, changed=self._publish) for child in plan.children()}
        self._keeping: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._ready = False

    async def run(self) -> None:
        """Start, keep until a stopping signal or the lifeline's end, stop. Whatever happens, nothing of it runs afterwards."""
        loop = asyncio.get_running_loop()
        for number in STOPPING:
            loop.add_signal_handler(number, self._stop.set)
        if self._lifeline is not None:
            self._lifeline.watch(loop, self._stop.set)
        try:
            if await self._unless_stopped(self._start()):
                self._ready = True
                self._publish()
                self._report("ready", str(self._plan.places.stack))
                await self._stop.wait()
        finally:
            await self._stop_all()

    async def _start(self) -> None:
        await self._start_group((*SERVERS, *BESIDE))
        await asyncio.to_thread(partial(fill, self._plan, provision=self._provision, report=self._report))
        await self._start_group(OURS)

    async def _start_group(self, names: Iterable[str]) -> None:
        """Start these side by side; each is kept from the moment it is up, also while others still start."""
        keepers = [self._keepers[name] for name in names if name in self._keepers]
        starting = [asyncio.create_task(self._start_one(keeper)) for keeper in keepers]
        try:
            await asyncio.gather(*starting)
        finally:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)

    async def _start_one(self, keeper: Keeper) -> None:
        self._report("step", f"starting {keeper.child.name}")
        await keeper.start()
        self._keeping.append(asyncio.create_task(keeper.keep()))

    async def _unless_stopped(self, start: Coroutine[Any, Any, None]) -> bool:
        """Wait for the start; False where a signal came first."""
        starting = asyncio.create_task(start)
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if starting.done():
            starting.result()
            return True
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return False

    def _publish(self) -> None:
        """Write stack.json once all are up, and again whenever a pid has changed."""
        if self._ready:
            pids = {name: keeper.pid for name, keeper in self._keepers.items() if keeper.pid is not None}
            self._plan.stack(supervisor=os.getpid(), pids=pids).write(self._plan.places)

    async def _stop_all(self) -> None:
        """Worker first, so that it can still revoke; then the console; then the servers."""
        for task in self._keeping:
            task.cancel()
        await asyncio.gather(*self._keeping, return_exceptions=True)
        for group in (("worker",), ("console",), (*SERVERS, *BESIDE)):
            await asyncio.gather(*(self._keepers[name].stop() for name in group if name in self._keepers))
        self._plan.places.stack.unlink(missing_ok=True)
