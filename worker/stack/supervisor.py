"""The process that starts the embedded servers, the worker and the console, keeps them running and stops them in order.

Each child is described in children.py and postgres.py; the content of the shop and of Vault is in seed.py and worker/provisioning/.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
from collections.abc import Iterable
from functools import partial

import structlog

from justenough.adapters.configuration.settings import Settings
from justenough.adapters.runtime.private_files import make_private_folder
from justenough.domain.core.errors import GiveUp
from worker.stack.children import STOP_MARGIN_S
from worker.stack.job_python import with_job_python
from worker.stack.managed_process import ManagedProcess
from worker.stack.paths import StackPaths
from worker.stack.pidfile import hold_supervisor_lock, read_pidfile, remove_pidfile
from worker.stack.plan import StackPlan, prepare_plan
from worker.stack.seed import seed_servers
from worker.stack.stack_file import APPS, CHILDREN, CONFIGURATION_CHILDREN, SERVERS
from worker.stack.starter_pipes import Report, watch_lifeline

log = structlog.get_logger(__name__)

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ORPHAN_TIMEOUT_S = 5


def supervise(
    settings: Settings, *, only: Iterable[str] = CHILDREN, provision: bool = True, lifeline: int | None = None, report: Report
) -> None:
    """Run the stack until a signal or the end of its lifeline, a pipe's descriptor, stops it.

    Raises AlreadyRunning, GiveUp, ProgramMissing, CannotEnter, PortTaken, ChildFailed and the like.
    """
    paths, children = StackPaths(settings.home), frozenset(only)
    # Where no Vault of a stack has ever run, `vault apply` wrote the logins of an installation. The stack would replace them.
    logins = () if "vault" not in children or paths.seal_key.exists() else (settings.worker_approle_file, settings.console_approle_file)
    if other := [str(file) for file in logins if file.expanduser().exists()]:
        raise GiveUp(
            f"{' and '.join(other)}: belongs to an installation with its own Vault, and a stack in this folder would overwrite it;"
            " set JUSTENOUGH_HOME to another folder for the stack"
        )
    # Other users must not read the files of this process and its children, and no child may leave a core dump.
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    make_home(paths)
    with hold_supervisor_lock(paths):
        end_orphans(paths, drain=settings.drain)
        with prepare_plan(with_job_python(settings, report) if "worker" in children else settings, children) as plan:
            asyncio.run(Supervisor(plan, provision=provision, lifeline=lifeline, report=report).run())


def make_home(paths: StackPaths) -> None:
    # PostgreSQL's account must be able to pass through the home, but not to list it.
    make_private_folder(paths.home, mode=0o711)
    for folder in (paths.run, paths.logs):
        make_private_folder(folder)


def end_orphans(paths: StackPaths, *, drain: int) -> tuple[str, ...]:
    """End the children that a killed supervisor left running; return their names. `drain`: the worker's, in seconds."""
    ended = []
    for name in reversed(CHILDREN):
        child = read_pidfile(paths.run, name)
        if child is not None and child.is_alive():
            # The worker revokes while it stops, and needs the servers for that. They are stopped after it.
            within = drain + STOP_MARGIN_S if name == "worker" else ORPHAN_TIMEOUT_S
            child.end(signal.SIGINT if name == "postgres" else signal.SIGTERM, within=within)
            ended.append(name)
        remove_pidfile(paths.run, name)
    return tuple(ended)


class Supervisor:
    """One run of the stack, from its start to its stop."""

    def __init__(self, plan: StackPlan, *, provision: bool, lifeline: int | None, report: Report) -> None:
        self._plan = plan
        self._provision = provision
        self._lifeline = lifeline
        self._report = report
        self._processes = {child.name: ManagedProcess(child, plan.paths, on_change=self._publish) for child in plan.children()}
        self._keep_tasks: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._ready = False

    async def run(self) -> None:
        """Start the children, keep them running until a signal or the lifeline's end, and stop them, even after an error."""
        loop = asyncio.get_running_loop()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._stop.set)
        if self._lifeline is not None:
            watch_lifeline(self._lifeline, loop, self._stop.set)
        starting, stopping = asyncio.create_task(self._start()), asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()
                self._ready = True
                self._publish()
                self._report("ready", str(self._plan.paths.stack))
                await stopping
        finally:
            with contextlib.suppress(OSError):
                self._publish()
            starting.cancel()
            stopping.cancel()
            await asyncio.gather(starting, stopping, return_exceptions=True)
            for task in self._keep_tasks:
                task.cancel()
            await asyncio.gather(*self._keep_tasks, return_exceptions=True)
            # The worker stops first, so that it can still revoke.
            for group in (("worker",), ("console",), (*SERVERS, *CONFIGURATION_CHILDREN)):
                await asyncio.gather(*(self._processes[name].stop() for name in group if name in self._processes))
            self._plan.paths.stack.unlink(missing_ok=True)

    async def _start(self) -> None:
        await self._start_children((*SERVERS, *CONFIGURATION_CHILDREN))
        await asyncio.to_thread(partial(seed_servers, self._plan, provision=self._provision, report=self._report))
        await self._start_children(APPS)

    async def _start_children(self, names: Iterable[str]) -> None:
        """Start these children in parallel. A child that is up is kept running while the others are still starting."""

        async def start(process: ManagedProcess) -> None:
            self._report("step", f"starting {process.child.name}")
            await process.start()
            self._keep_tasks.append(asyncio.create_task(process.keep_running()))

        starting = [asyncio.create_task(start(self._processes[name])) for name in names if name in self._processes]
        try:
            await asyncio.gather(*starting)
        finally:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)

    def _publish(self) -> None:
        """Write stack.json once all children are up, again whenever a pid has changed, and when the stack begins to stop."""
        if self._ready:
            pids = {name: process.pid for name, process in self._processes.items() if process.pid is not None}
            self._plan.stack(supervisor=os.getpid(), pids=pids, stopping=self._stop.is_set()).write(self._plan.paths)
