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
from worker.stack.lock import hold_supervisor_lock
from worker.stack.managed_process import ManagedProcess
from worker.stack.paths import StackPaths
from worker.stack.pidfile import read_pidfile, remove_pidfile
from worker.stack.plan import StackPlan, prepare_plan
from worker.stack.private_files import make_private_folder
from worker.stack.seed import seed_servers
from worker.stack.stack_file import APPS, CHILDREN, CONFIGURATION_CHILDREN, SERVERS
from worker.stack.start_progress import Report

log = structlog.get_logger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ORPHAN_TIMEOUT_S = 5


def supervise(
    settings: Settings, *, only: Iterable[str] = CHILDREN, provision: bool = True, lifeline: Lifeline | None = None, report: Report
) -> None:
    """Run the stack until a signal or the end of its lifeline stops it.

    Raises AlreadyRunning, ProgramMissing, CannotEnter, PortTaken, ChildFailed and the like.
    """
    places = StackPaths.of(settings.home)
    # Nothing that this process or a child makes is for others to read, and no child leaves its memory on disk.
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    make_home(places)
    with hold_supervisor_lock(places):
        places.stack.unlink(missing_ok=True)
        end_orphans(places)
        with prepare_plan(settings, frozenset(only)) as plan:
            asyncio.run(Supervisor(plan, provision=provision, lifeline=lifeline, report=report).run())


def make_home(places: StackPaths) -> None:
    """Make the home and the folders that every start needs."""
    # PostgreSQL's account must pass through the home; it cannot list it.
    make_private_folder(places.home, mode=0o711)
    for folder in (places.run, places.logs):
        make_private_folder(folder)


def end_orphans(places: StackPaths) -> tuple[str, ...]:
    """End the children that a killed supervisor left; return their names."""
    ended = []
    for name in reversed(CHILDREN):
        mark = read_pidfile(places.run, name)
        if mark is not None and mark.is_alive():
            mark.end(signal.SIGINT if name == "postgres" else signal.SIGTERM, within=ORPHAN_TIMEOUT_S)
            ended.append(name)
        remove_pidfile(places.run, name)
    return tuple(ended)


class Supervisor:
    """One run of the stack, from its start to its stop."""

    def __init__(self, plan: StackPlan, *, provision: bool, lifeline: Lifeline | None, report: Report) -> None:
        self._plan = plan
        self._provision = provision
        self._lifeline = lifeline
        self._report = report
        self._processes = {child.name: ManagedProcess(child, plan.places, on_change=self._publish) for child in plan.children()}
        self._keep_tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._ready = False

    async def run(self) -> None:
        """Start, keep until a stopping signal or the lifeline's end, stop. Whatever happens, nothing of it runs afterwards."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        if self._lifeline is not None:
            self._lifeline.watch(loop, self._stop.set)
        try:
            if await self._run_unless_stopped(self._start()):
                self._ready = True
                self._publish()
                self._report("ready", str(self._plan.places.stack))
                await self._stop.wait()
        finally:
            await self._stop_all()

    async def _start(self) -> None:
        await self._start_children((*SERVERS, *CONFIGURATION_CHILDREN))
        await asyncio.to_thread(partial(seed_servers, self._plan, provision=self._provision, report=self._report))
        await self._start_children(APPS)

    async def _start_children(self, names: Iterable[str]) -> None:
        """Start these side by side; each is kept from the moment it is up, also while others still start."""
        keepers = [self._processes[name] for name in names if name in self._processes]
        starting = [asyncio.create_task(self._start_one(keeper)) for keeper in keepers]
        try:
            await asyncio.gather(*starting)
        finally:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)

    async def _start_one(self, process: ManagedProcess) -> None:
        self._report("step", f"starting {process.child.name}")
        await process.start()
        self._keep_tasks.append(asyncio.create_task(process.keep_running()))

    async def _run_unless_stopped(self, start: Coroutine[Any, Any, None]) -> bool:
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
            pids = {name: keeper.pid for name, keeper in self._processes.items() if keeper.pid is not None}
            self._plan.stack(supervisor=os.getpid(), pids=pids).write(self._plan.places)

    async def _stop_all(self) -> None:
        """Worker first, so that it can still revoke; then the console; then the servers."""
        for task in self._keep_tasks:
            task.cancel()
        await asyncio.gather(*self._keep_tasks, return_exceptions=True)
        for group in (("worker",), ("console",), (*SERVERS, *CONFIGURATION_CHILDREN)):
            await asyncio.gather(*(self._processes[name].stop() for name in group if name in self._processes))
        self._plan.places.stack.unlink(missing_ok=True)
