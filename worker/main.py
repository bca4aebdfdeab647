"""The worker's process: checks itself, logs in to Vault, connects, polls, and drains when it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path

import structlog
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleIntervalSpec,
    ScheduleOverlapPolicy,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleUpdate,
)
from temporalio.contrib.pydantic import pydantic_data_converter

from activities.process import no_sandbox, uid_pool
from activities.process.sandbox import Sandbox
from activities.support.async_tools import repeat_call
from justenough.adapters.configuration.settings import Settings, load_settings
from justenough.adapters.runtime import gc_tuning
from justenough.adapters.runtime.logging_setup import configure_logs
from justenough.domain.core.errors import GiveUp, JustEnoughError, RetryLater
from justenough.services.dependencies import open_worker_deps
from worker.temporal_worker import run_workers
from workflows import options
from workflows.sweep import Sweep

PACKAGES = ("justenough", "activities", "workflows", "worker")
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
LIVENESS_INTERVAL_S = 1.0
SPARE_THREADS = 16
CONNECT_TIMEOUT_S = 20.0
"""Seconds."""
log = structlog.get_logger()


class ForeignPackage(GiveUp):
    """A package with one of our generic names was imported from somewhere else."""


class TemporalDown(RetryLater):
    """Temporal does not answer, or not in time."""


def main() -> None:
    """Run until SIGTERM or SIGINT; exit 1 with one sentence where it cannot start."""
    # A core dump would hold secrets; jobs inherit this too.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    settings = load_settings()
    configure_logs(settings.log_level)
    try:
        check_packages()
        asyncio.run(run(settings))
    except JustEnoughError as error:
        # Where a server is only away, whoever keeps this process starts it again.
        sys.exit(f"worker cannot start: {error}")


def check_packages() -> None:
    """Raise ForeignPackage unless each of our packages lies beside this one: their names are generic."""
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        found = Path(str(importlib.import_module(name).__file__)).resolve().parent.parent
        if found != home:
            message = f"package {name!r} was imported from {found}, not from {home}; give the worker an environment of its own"
            raise ForeignPackage(message)


async def run(settings: Settings) -> None:
    """Run a worker in this process until it is told to stop."""
    stop = asyncio.Event()
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    # Sessions wait in threads for Vault and the store; the default pool of a small machine would make them wait for each other.
    # Twice as many as sessions, and more: each may have one that hangs in a slow store, and still has to revoke.
    threads = ThreadPoolExecutor(2 * settings.max_sessions + SPARE_THREADS, thread_name_prefix="session")
    asyncio.get_running_loop().set_default_executor(threads)
    sandbox = await asyncio.to_thread(Sandbox.probe, settings)
    await asyncio.to_thread(_end_leftover_jobs, settings)
    with open_worker_deps(settings, os.environ) as deps:
        client = await connect_temporal(settings)
        await schedule_sweep(client, settings)
        # To the end of its draining: a supervisor would kill one that shows no sign of life.
        async with signal_liveness(settings.home / "run" / "worker.alive"), run_workers(client, deps, sandbox):
            gc_tuning.freeze()
            log.info("worker ready", task_queue=settings.task_queue, sandbox=sandbox.isolation.value)
            await stop.wait()
            log.info("worker stops", drain=settings.drain)
    # Whoever asks again while the last threads end must not turn an orderly end into a death by signal.
    for number in STOP_SIGNALS:
        asyncio.get_running_loop().remove_signal_handler(number)
        signal.signal(number, signal.SIG_IGN)


def _end_leftover_jobs(settings: Settings) -> None:
    """End what jobs of workers that died on this machine still run, or left behind. Their access is long cut, from wherever a worker was."""
    for uid in uid_pool.end_leftovers(settings):
        log.warning("ended what a dead worker's job still ran", uid=uid)
    for job in no_sandbox.clear_leftovers():
        log.warning("removed what a dead worker's job left behind", job=job)


async def connect_temporal(settings: Settings) -> Client:
    """Return a client of the installation's Temporal. Raises TemporalDown."""
    connecting = Client.connect(
        settings.temporal_address,
        namespace=settings.temporal_namespace,
        data_converter=pydantic_data_converter,
        identity=f"worker-{os.getpid()}",
    )
    try:
        return await asyncio.wait_for(connecting, CONNECT_TIMEOUT_S)
    except (RuntimeError, TimeoutError) as error:
        # The SDK has no type of its own for this.
        message = f"Temporal at {settings.temporal_address} does not answer"
        raise TemporalDown(message) from error


async def schedule_sweep(client: Client, settings: Settings) -> None:
    """Make sure that the installation's sweep runs every few seconds, and never two at once."""
    name = f"sweep-{settings.installation}"
    schedule = Schedule(
        action=ScheduleActionStartWorkflow(Sweep.run, id=name, task_queue=settings.task_queue, execution_timeout=options.SWEEP_TIMEOUT),
        spec=ScheduleSpec(intervals=[ScheduleIntervalSpec(every=options.SWEEP_INTERVAL)]),
        # The default catches up for a year: after an outage that would be thousands of sweeps.
        policy=SchedulePolicy(overlap=ScheduleOverlapPolicy.SKIP, catchup_window=timedelta(seconds=10)),
    )
    try:
        await client.create_schedule(name, schedule)
    except ScheduleAlreadyRunningError:
        await client.get_schedule_handle(name).update(lambda _: ScheduleUpdate(schedule=schedule))


@contextlib.asynccontextmanager
async def signal_liveness(file: Path) -> AsyncIterator[None]:
    """Touch a file while this process's event loop turns, for whoever watches it."""
    await asyncio.to_thread(file.parent.mkdir, parents=True, exist_ok=True, mode=0o700)
    try:
        async with repeat_call(partial(_touch, file), LIVENESS_INTERVAL_S):
            yield
    finally:
        await asyncio.to_thread(file.unlink, missing_ok=True)


def _touch(file: Path) -> None:
    # On the event loop on purpose: it says that the loop turns, and must not wait for a thread.
    file.touch(mode=0o600)
