"""The worker's process: checks its packages, logs in to Vault, connects to Temporal, polls, and drains when a signal stops it."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import structlog

from activities.broker.server.listener import MAX_CONNECTIONS
from activities.process import no_sandbox, uid_pool
from activities.process.job_firewall import keep_servers_closed
from activities.process.sandbox import Sandbox
from activities.session.dead_sessions import end_dead_sessions
from activities.support.async_tools import repeat_call, run_beside, wait_up_to
from justenough.adapters.configuration.settings import Settings, load_settings
from justenough.adapters.runtime import gc_tuning, open_files
from justenough.adapters.runtime.logging_setup import configure_logs
from justenough.adapters.temporal import build_codec, connect_temporal, prepare_namespace, with_temporal_profile
from justenough.domain.core.errors import GiveUp, JustEnoughError, RetryLater
from justenough.domain.ledger.overdue import WORKER_REPORT_INTERVAL
from justenough.domain.readmodel.views import WorkerView
from justenough.services.dependencies import Deps, open_worker_deps
from worker.crash_watcher import start_crash_watcher
from worker.sweep_schedule import keep_sweep_schedule
from worker.temporal_worker import BUILD_ID, run_workers

PACKAGES = ("justenough", "activities", "workflows", "worker")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LIVENESS_INTERVAL_S = 1.0
SPARE_THREADS = 16
FILES_PER_SESSION, SPARE_FILES = 2 * MAX_CONNECTIONS + 64, 512
"""Open files that a session may need: its job's connections to both addresses of its broker, and its own; and the number that a worker needs besides."""
log = structlog.get_logger()


class HomeNotWritable(RetryLater):
    """The worker cannot write into its home: its disk is full or read-only, or the folder is another user's."""


def main() -> None:
    """Run until SIGTERM or SIGINT; exit 1 with one sentence if the worker cannot start."""
    # A core dump would contain secrets. Jobs inherit this limit.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        settings = load_settings()
        configure_logs(settings.log_level)
        check_packages()
        # Otherwise jobs that open as many connections as they may would keep the worker from revoking.
        needed = FILES_PER_SESSION * settings.max_sessions + SPARE_FILES
        if (possible := open_files.raise_limit(needed)) < needed:
            log.warning("jobs may use up the worker's open files: raise its hard limit (LimitNOFILE)", limit=possible, needed=needed)
        start_crash_watcher(settings)
        asyncio.run(run(with_temporal_profile(settings)))
    except JustEnoughError as error:
        # If a server is only unreachable, the process manager starts this worker again.
        sys.exit(f"worker cannot start: {error}")


def check_packages() -> None:
    """Raise GiveUp unless all our packages are in the same folder as this one: their names are generic, so Python may import
    others.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        origin = Path(str(importlib.import_module(name).__file__)).resolve().parent.parent
        if origin != home:
            message = f"package {name!r} was imported from {origin}, not from {home}; install the worker in a separate environment"
            raise GiveUp(message)


async def run(settings: Settings) -> None:
    """Run a worker in this process until a signal stops it."""
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Sessions wait in threads for Vault and the store. With a small machine's default pool they would wait for each other.
    # More than two threads per session: while one hangs in a slow store, the session still has to revoke.
    threads = ThreadPoolExecutor(2 * settings.max_sessions + SPARE_THREADS, thread_name_prefix="session")
    asyncio.get_running_loop().set_default_executor(threads)
    async with open_deps(settings) as deps:
        sandbox = await asyncio.to_thread(Sandbox.probe, settings)
        # Jobs of dead workers may have left processes and files on this machine. Their access is already being revoked.
        for uid in await asyncio.to_thread(uid_pool.end_leftovers, settings):
            log.warning("ended processes of a dead worker's job", uid=uid)
        for job in await asyncio.to_thread(no_sandbox.clear_leftovers):
            log.warning("removed files of a dead worker's job", job=job)
        codec = build_codec(deps.vault, settings)
        await codec.prepare()
        client = await connect_temporal(settings, identity=f"worker-{os.getpid()}", codec=codec)
        await prepare_namespace(client)
        # The liveness signal lasts until the drain ends: a supervisor would kill a worker without it.
        alive = signal_liveness(settings.home / "run" / "worker.alive")
        schedule, firewall = run_beside(partial(keep_sweep_schedule, client, settings)), keep_servers_closed(settings)
        async with alive, report_self(deps), schedule, firewall, run_workers(client, deps, sandbox):
            gc_tuning.freeze()
            if deps.config.digest_in_force is not None:
                log.info("worker ready", task_queue=settings.task_queue, sandbox=sandbox.isolation.value)
            await stop.wait()
            log.info("worker stops", drain=settings.drain)
    # Ignore a second signal while the last threads end: it would turn an orderly exit into a death by signal.
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


@contextlib.asynccontextmanager
async def open_deps(settings: Settings) -> AsyncIterator[Deps]:
    """Open everything that a worker needs for a block. From the start, also revoke what dead workers on this machine held."""
    with open_worker_deps(settings, os.environ) as deps:
        async with run_beside(partial(end_dead_sessions, deps)):
            yield deps


@contextlib.asynccontextmanager
async def signal_liveness(file: Path) -> AsyncIterator[None]:
    """Touch a file every second during a block, so that a watcher sees that this process's event loop is running. Raises HomeNotWritable."""
    try:
        await asyncio.to_thread(file.parent.mkdir, parents=True, exist_ok=True, mode=0o700)
        await asyncio.to_thread(file.touch, mode=0o600)
    except OSError as error:
        raise HomeNotWritable(f"{error.filename}: {error.strerror}; make JUSTENOUGH_HOME a folder in which the worker can write") from error

    def touch() -> None:
        # The next one may work.
        with contextlib.suppress(OSError):
            file.touch(mode=0o600)

    try:
        # This blocking call is on the event loop on purpose: the file shows that the loop runs, so the call must not wait for a thread.
        async with repeat_call(touch, LIVENESS_INTERVAL_S):
            yield
    finally:
        await asyncio.to_thread(file.unlink, missing_ok=True)


@contextlib.asynccontextmanager
async def report_self(deps: Deps) -> AsyncIterator[None]:
    """Report this worker's version and configuration to the store, where consoles see it, until the block ends; then remove the report.

    An unreachable store is not an error.
    """
    name = f"{socket.gethostname()}-{os.getpid()}"

    def report() -> None:
        view = WorkerView(
            name=name,
            version=BUILD_ID,
            config_digest=deps.config.digest_in_force,
            config_alarm=deps.config.alarm,
            last_seen=deps.now(),
        )
        try:
            deps.store.workers.report(view)
        except JustEnoughError as error:
            log.warning("this worker could not be reported", error=type(error).__name__)

    async def repeat(ended: asyncio.Event) -> None:
        while not ended.is_set():
            await asyncio.to_thread(report)
            await wait_up_to(WORKER_REPORT_INTERVAL, ended)

    try:
        # End the reports first: none may follow the removal.
        async with run_beside(repeat):
            yield
    finally:
        with contextlib.suppress(JustEnoughError):
            await asyncio.to_thread(deps.store.workers.forget, name)
