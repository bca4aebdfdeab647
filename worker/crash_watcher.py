"""A process next to each worker that outlives the worker. If the worker dies, this process at once revokes what the worker's sessions held,
and then ends.

It needs neither Temporal nor another worker. While the worker lives, this process only waits: it has no connections and no secrets, and
shares its memory with the worker.
"""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import structlog

from activities.session.dead_sessions import MAX_CONCURRENT_SESSIONS, find_dead_sessions
from justenough.adapters.configuration.settings import Settings
from justenough.domain.core.errors import JustEnoughError
from justenough.services.dependencies import open_worker_deps

IGNORED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""Signals that may be sent to the worker and all processes around it.

The worker then shuts down cleanly, and this process ends right after it.
"""
EXIT_POLL_INTERVAL_S = 0.01
MAX_LIFETIME_S = 30
"""How long it may run without its worker. A service manager may wait for it before starting another worker."""
log = structlog.get_logger()


def start_crash_watcher(settings: Settings) -> None:
    """Fork the watcher of this process. Call it before this process has threads, connections or secrets."""
    worker = os.getpid()
    try:
        reading, held = os.pipe()
        is_worker = os.fork() != 0
    except OSError as error:
        log.warning("worker has no watcher; if it dies, its jobs' access ends later", error=error.strerror)
        return
    if is_worker:
        # This process never closes the other end: the kernel does.
        os.close(reading)
        return
    try:
        os.close(held)
        os.setsid()
        for number in IGNORED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        os.read(reading, 1)
        # The kernel may close the pipe before it releases the locks, but it gives this process another parent after both.
        while os.getppid() == worker:
            time.sleep(EXIT_POLL_INTERVAL_S)
        signal.alarm(MAX_LIFETIME_S)
        end_sessions(settings)
    except Exception as error:  # noqa: BLE001 - nobody is left to hear of it
        why = str(error) if isinstance(error, JustEnoughError) else type(error).__name__
        log.warning("what a dead worker's jobs held is left to other workers", error=why)
    finally:
        os._exit(0)


def end_sessions(settings: Settings) -> None:
    """Revoke what dead workers' sessions on this machine hold. After a clean shutdown there are no such sessions."""
    if dead := find_dead_sessions(settings):
        with open_worker_deps(settings, os.environ) as deps, ThreadPoolExecutor(MAX_CONCURRENT_SESSIONS) as pool:
            list(pool.map(lambda session: session.revoke(deps), dead))
