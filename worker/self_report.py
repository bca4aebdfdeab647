"""A worker reports to the store: its version, and which configuration it has in force. Consoles show what workers report."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator

import structlog

from activities.support.async_tools import run_beside, wait_up_to
from justenough.domain.core.errors import JustEnoughError
from justenough.domain.ledger.overdue import WORKER_REPORT_INTERVAL
from justenough.domain.readmodel.views import WorkerView
from justenough.services.dependencies import Deps
from worker.temporal_worker import BUILD_ID

log = structlog.get_logger()


@contextlib.asynccontextmanager
async def report_self(deps: Deps) -> AsyncIterator[None]:
    """Report this process now and every WORKER_REPORT_INTERVAL until the block ends, then remove the report.

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
        # No report may follow the removal.
        async with run_beside(repeat):
            yield
    finally:
        with contextlib.suppress(JustEnoughError):
            await asyncio.to_thread(deps.store.workers.forget, name)
